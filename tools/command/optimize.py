"""`optimize MODEL -o OUT`: its options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..console import Console
from ..options import OPTIONS, settings, taking
from .shared import shown
from .verb import verb


@verb
@taking(*OPTIONS)
def optimize(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="directory, hub id, .onnx or .pt2", show_default=False),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="YAML file with these options; the command line wins", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the run as such a file and stop")] = False,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Optimise MODEL into a bundle."""
    from .. import config as configs

    chosen = settings({"model": model, **given})
    read = configs.read(config) if config else {}
    if {"preset", "pipeline"} & chosen.keys():
        read.pop("preset", None)
        read.pop("pipeline", None)
    if "model" not in {**read, **chosen}:
        raise typer.BadParameter("name a MODEL, or a --config file that does")
    run = configs.make({**read, **chosen})
    if dry_run:
        from ..build.preflight import passes_of

        resolved = configs.resolve(run)
        passes_of(resolved)
        console.text(resolved.to_yaml())
        return 0
    if run.out is None:
        raise typer.BadParameter("name the bundle's directory with -o OUT")
    from ..verbs.optimize import run as run_config

    return shown(run_config(run, console), console)

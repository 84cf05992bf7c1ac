"""`optimize runner`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .verb import verb


@verb
def runner(
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the runner; must be new")],
    compiler: Annotated[
        str | None,
        typer.Option(
            metavar="system|zig", help="by default the system's where there is one", show_default=False
        ),
    ] = None,
    *,
    console: Console,
) -> None:
    """Build a C library and a program that run bundles without Python."""
    if compiler not in (None, "system", "zig"):
        raise typer.BadParameter("--compiler is system or zig")
    from ..verbs import runner as building

    folder = building.build(out, compiler)
    if console.json:
        console.value(building.to_json(folder))
    else:
        console.show(*building.sentences(folder))

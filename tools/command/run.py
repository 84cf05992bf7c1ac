"""`optimize run`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .verb import verb


@verb
def run(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    text: Annotated[
        list[str] | None, typer.Option("--text", help="may be repeated", show_default=False)
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            help="JSON or .npz file with an array for each input, instead of text",
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
) -> None:
    """Run a bundle on texts or arrays and print what it says."""
    from ..verbs import run as running

    found = running.run(bundle, text, inputs)
    if console.json:
        console.value(running.to_json(found))
    else:
        console.show(*running.lines(found))

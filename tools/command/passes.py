"""`optimize passes`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .verb import verb


@verb
def passes(
    name: Annotated[str | None, typer.Argument(help="one pass, in full", show_default=False)] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="show what the pass rewrites in MODEL", show_default=False),
    ] = None,
    *,
    console: Console,
) -> int:
    """List the passes, describe one, or show what one rewrites in a model."""
    from ...passes.manager.registry import names
    from ..verbs import passes as catalog

    if on is not None:
        if name is None:
            raise typer.BadParameter("name the pass to try: optimize passes NAME --on MODEL")
        from ..build.steps import StepEvidence, step_json
        from ..verbs.rewrites import described, tried

        step = tried(name, on, console)
        if console.json:
            console.value(step_json(StepEvidence(step)))
        else:
            console.show(described(step))
        return 1 if step.error is not None else 0
    entries = [catalog.entry(known) for known in ([name] if name else names())]
    if console.json:
        console.value([entry.to_json() for entry in entries])
    elif name:
        console.show(catalog.describe(entries[0]))
    else:
        console.show(catalog.table(entries))
    return 0

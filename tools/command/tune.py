"""`optimize tune`: its options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..console import Console
from ..options import settings, taking
from .verb import verb


@verb
@taking("preset", "pipeline", "threads", "shapes", "seed")
def tune(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|BUNDLE", help="a bundle: what it was made from", show_default=False),
    ],
    trials: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="schedules tried for each function that no kernel covers"),
    ] = 64,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Search faster kernels for MODEL on this machine; later builds with --backend tvm use them.

    Everything timed is kept: an interrupted search goes on where it was.
    """
    from ..verbs import tune as tuning

    result = tuning.tune(tuning.settings_of(model, settings(given)), trials, console)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(*tuning.tables(result))
    return result.status

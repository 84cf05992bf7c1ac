"""`optimize verify`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .shared import Seed, number
from .verb import verb


@verb
def verify(
    first: Annotated[str, typer.Argument(metavar="A")],
    second: Annotated[str, typer.Argument(metavar="B")],
    tolerance: Annotated[
        float,
        typer.Option(callback=number, help="largest difference, on outputs scaled by max(1, |A|)"),
    ] = 1e-4,
    seed: Seed = 0,
    *,
    console: Console,
) -> int:
    """Check that A and B give the same outputs; status 1 if not, 3 if their outputs verify nothing."""
    from ..verbs import verify as verification

    result = verification.verify(first, second, tolerance, seed)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(result.sentence)
    return result.status

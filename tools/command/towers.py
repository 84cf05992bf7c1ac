"""`optimize towers`: its options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..console import Console
from ..options import taking
from .shared import Seed
from .verb import verb


@verb
@taking("data", "columns")
def towers(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="the bundle that reads questions")],
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="the bundle that reads texts")],
    out: Annotated[str, typer.Option("-o", "--out", help="directory for both")],
    force: Annotated[bool, typer.Option("--force", help="replace earlier towers at OUT")] = False,
    seed: Seed = 0,
    *,
    console: Console,
    **given: Any,
) -> None:
    """Join the bundles of a dual encoder's two towers, for `optimize index`; --data judges them."""
    from ..retrieval.towers import Towers
    from ..verbs import towers as joining

    columns = dict(part.split("=", 1) for part in (given["columns"] or "").split(",") if part)
    found = Towers.join(query, document, out, force=force)
    score = joining.judged(found, given["data"], columns, 2000, seed) if given["data"] else None
    if console.json:
        console.value({"directory": out, "model": found.digest, "quality": score and score.to_json()})
    else:
        console.show(*joining.lines(found, score))

"""`optimize search`: its options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ..console import Console, complain
from ..options import settings, taking
from .shared import Model
from .verb import verb


class Sampler(StrEnum):
    """What decides which candidate a search tries next."""

    TPE = "tpe"
    NSGA2 = "nsga2"


class Engine(StrEnum):
    """Where candidates are made."""

    LOCAL = "local"
    RAY = "ray"


@verb
@taking(
    "out", "data", "calibrate", "task", "columns", "samples", "threads", "shapes", "seed", "backend",
    "model_type", "quick",
)  # fmt: skip
def search(
    model: Model,
    goal: Annotated[
        str,
        typer.Option(help='limits, as in "latency<=5ms@1x128, drop<=1.0, size<=20MB"', show_default=False),
    ] = "",
    minimise: Annotated[
        str | None, typer.Option(help="latency, size or drop; what the goal limits by default")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="of all trials, as 2h or 90m; 1h by default", show_default=False)
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="trials at most", show_default=False)] = None,
    space: Annotated[
        str | None,
        typer.Option(metavar="FILE.yaml|show", help="narrow the space, or print it", show_default=False),
    ] = None,
    sampler: Annotated[Sampler, typer.Option(help="what decides")] = Sampler.TPE,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="database of the study", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the search in OUT")] = False,
    best: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="keep only the bundle that is best in it", show_default=False),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="made here, or on the machines of a running Ray")
    ] = Engine.LOCAL,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Search what makes MODEL faster or smaller within limits; keep bundles of the Pareto front.

    Every trial is kept: a search that was interrupted or killed goes on with --resume.
    """
    from ..verbs import search as searching

    chosen = settings({"model": model, **given})
    if space == "show":
        console.text(searching.shown(chosen, console))
        return 0
    if "out" not in chosen:
        raise typer.BadParameter("name the search's folder with -o OUT")
    found = searching.run(
        chosen,
        {
            "goal": goal,
            "minimise": minimise,
            "budget": budget,
            "trials": trials,
            "space": space,
            "sampler": sampler.value,
            "storage": storage,
            "resume": resume,
            "best": best,
            "engine": engine.value,
        },
        console,
    )
    if console.json:
        console.value(found.to_json())
    else:
        console.show(*searching.tables(found))
    for failure in found.failures:
        complain(f"optimize: {failure}")
    return found.status

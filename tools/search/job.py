"""The whole job of a search: what its candidates share, the study, the loop, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...ir.errors import ConfigError
from ..build.work import Work
from ..config import RunConfig, read
from ..console import Console
from .begun import Begun, facts, identity
from .evaluation import Evaluation
from .explore import explore
from .first import first
from .goal import Goal, goal
from .kept import RECORD, Kept, best_of
from .making import Here, Workers
from .narrowed import narrowed
from .order import Order, Searched
from .place import FILE, check, own
from .storage import opened
from .structures import PASS


@dataclass(frozen=True)
class Given:
    """What another process would begin with. goal: as it was asked for, without the model's workloads."""

    config: RunConfig
    goal: Goal
    source: Any
    inputs: Any
    console: Console


Making = Callable[[Given, Begun, Goal], AbstractContextManager[Workers]]


def here(given: Given, begun: Begun, aim: Goal) -> AbstractContextManager[Workers]:
    """This process, with what it has begun."""
    return nullcontext(Here(Evaluation(begun.work, aim, begun.console)))


def run(
    config: RunConfig,
    order: Order,
    console: Console,
    source: Any = None,
    inputs: Any = None,
    making: Making = here,
) -> Searched:
    """A search as ordered.

    Args:
        source: the model itself where the configuration can only name it.
        making: gives what makes candidates, of what is asked for, what was begun here, and its goal.

    Raises:
        GraphwrightError: in one sentence, what can't be; a search that is there stays as it was.
        KeyboardInterrupt: what was tried is kept.
    """
    aim, limits = goal(order.goal, order.minimise), order.limits()
    folder = Path(config.out or "")
    check(folder, order.resume, order.storage is not None)
    best_of(aim, order.best)
    if order.space is not None:
        read(order.space)
    given = Given(config, aim, source, inputs, console)
    begun = Begun(config, aim, console, source, inputs)
    aim = aim.at(begun.names)
    _judgeable(aim, begun.work)
    left = begun.whole if order.space is None else narrowed(begun.whole, order.space)
    held = identity(begun, aim, left, order.sampler)
    settings: dict[str, Any] = {
        "sampler": order.sampler,
        "seed": config.seed,
        "storage": order.storage,
        "resume": order.resume,
    }
    try:
        with (
            own(folder),
            making(given, begun, aim) as workers,
            opened(folder, aim, held, **settings) as study,
        ):
            # One that was begun by a process alone goes on so, wherever it is.
            at_once = study.note("at once") or 1 if study.tried() else workers.at_once
            workers.several(study.note("at once", at_once))
            workers.shared = study.note("baseline") or study.note("baseline", workers.ask("measured"))
            if study.note("proposed") is None:
                wanted = PASS in left.values("structure")
                for choices in first(left, workers.ask("foretold") if wanted else ()):
                    study.propose(choices)
                study.note("proposed", True)
            kept = Kept(folder, aim, facts(begun, left, held, workers.shared), order.best)
            limits = replace(limits, at_once=workers.at_once)
            begun.console.begin(limits)
            found = explore(study, left, aim, workers, kept, limits, begun.console.after)
            known = study.tried()
            return Searched(folder, aim, found, known, kept.record(known, found))
    except KeyboardInterrupt:
        if not (folder / RECORD).is_file() and not (folder / FILE).is_file():
            raise
        raise KeyboardInterrupt(
            f"what was tried is kept in {folder}, and the same command with --resume goes on from there"
        ) from None


def _judgeable(aim: Goal, work: Work) -> None:
    wants = any(one.of.metric == "drop" for one in aim.limits) or any(
        one.metric == "drop" for one in aim.minimise
    )
    if wants and work.judged is None:
        raise ConfigError(f"goal: no drop can be told: {work.unverified or 'there is nothing to judge on'}")

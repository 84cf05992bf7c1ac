"""The whole job of a search: what its candidates share, the study, the loop, and what comes out."""

from __future__ import annotations

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
from .narrowed import narrowed
from .order import Order, Searched
from .place import FILE, check, own
from .storage import opened
from .structures import PASS


def run(
    config: RunConfig, order: Order, console: Console, source: Any = None, inputs: Any = None
) -> Searched:
    """A search as ordered. source: the model itself where the configuration can only name it.

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
        with own(folder), opened(folder, aim, held, **settings) as study:
            evaluation = Evaluation(begun.work, aim, begun.console)
            baseline = study.note("baseline") or study.note("baseline", evaluation.measured())
            evaluation.baseline = baseline
            if study.note("proposed") is None:
                wanted = PASS in left.values("structure")
                for choices in first(left, evaluation.structures.first() if wanted else ()):
                    study.propose(choices)
                study.note("proposed", True)
            kept = Kept(folder, aim, facts(begun, left, held, baseline), order.best)
            begun.console.begin(limits)
            found = explore(study, left, aim, evaluation, kept, limits, begun.console.after)
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

"""The loop of a search: ask, look whether it is known or forbidden, make it, put it on record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from ...ir.errors import GraphwrightError, PipelineError
from ...passes.manager.pipeline import Pipeline
from .front import Front, front
from .goal import Goal, Values
from .kept import Kept
from .space import Choices, Space
from .study import Asked, Study
from .tried import Tried


@dataclass(frozen=True)
class Candidate:
    """choices: those that its pipeline depends on."""

    number: int
    pipeline: Pipeline
    runtime: str
    choices: Choices


@dataclass(frozen=True)
class Found:
    """What was found of a candidate. values: of all that the goal asks for, where it is complete. save:
    writes its bundle to a folder; None writes none."""

    values: Values
    state: Literal["complete", "pruned", "refused"] = "complete"
    why: str = ""
    save: Callable[[Path], None] | None = field(default=None, compare=False)


class Evaluate(Protocol):
    """Makes a candidate, measures and judges it: the one thing that takes time in a search.

    Raises:
        GraphwrightError: it can't be made.
    """

    def __call__(self, candidate: Candidate, known: Sequence[Tried]) -> Found: ...


IDLE = 60  # trials in a row that made nothing, after which a space is taken to be tried out


@dataclass(frozen=True)
class Limits:
    """seconds: of all trials together, resumed ones too; trials: in all. None is no limit. A search also ends
    where many trials in a row found nothing that was not tried: the space has no more."""

    seconds: float | None = None
    trials: int | None = None

    def left(self, known: Sequence[Tried]) -> bool:
        done = [one for one in known if one.state != "running"]
        spent = sum(one.seconds for one in done)
        if len(done) >= IDLE and all(one.seconds == 0 for one in done[-IDLE:]):
            return False
        return (self.trials is None or len(done) < self.trials) and (
            self.seconds is None or spent < self.seconds
        )


def explore(
    study: Study,
    space: Space,
    goal: Goal,
    evaluate: Evaluate,
    kept: Kept,
    limits: Limits,
    after: Callable[[Sequence[Tried], Front], None] = lambda known, found: None,
) -> Front:
    """Try candidates until the budget is spent.

    Args:
        kept: where bundles of the front are kept, and the record of all.
        after: called at the beginning and after each trial, with all of them and the front.

    Returns:
        The front of everything in the study.
    """
    known = study.tried()
    kept.update(known, found := front(known, goal))
    after(known, found)
    while limits.left(known):
        asked = study.ask(space)
        try:
            one, save = (asked.recorded, None) if asked.recorded else _made(asked, space, evaluate, known)
        except KeyboardInterrupt:
            study.forgive(asked)
            raise
        others = [each for each in known if each.number != one.number]
        if save is not None and one.number in kept.wanted(front([*others, one], goal)):
            kept.save(one.number, save)
        study.tell(asked, one)
        known = study.tried()
        kept.update(known, found := front(known, goal))
        after(known, found)
    return found


def _made(
    asked: Asked, space: Space, evaluate: Evaluate, known: Sequence[Tried]
) -> tuple[Tried, Callable[[Path], None] | None]:
    """What is to be told of a trial, and what writes its bundle."""
    began = time.monotonic()
    runtime = str(asked.choices["runtime"])
    one = Tried(asked.number, "refused", asked.choices, runtime=runtime)
    try:
        pipeline = space.pipeline(asked.choices)
    except PipelineError as error:
        return replace(one, why=str(error)), None
    one = replace(one, pipeline=str(pipeline))
    for each in known:
        alike = (each.pipeline, each.runtime) == (one.pipeline, one.runtime)
        if alike and each.state in ("complete", "pruned", "refused"):
            return replace(one, state="same", same_as=each.number, values=each.values), None
    candidate = Candidate(asked.number, pipeline, runtime, space.used(asked.choices))
    try:
        found = evaluate(candidate, known)
    except GraphwrightError as error:
        found = Found({}, "refused", str(error))
    except MemoryError:
        found = Found({}, "refused", "there is not enough memory for it")
    except Exception as error:  # of a library: the search goes on, and the record says what it was
        said = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        found = Found({}, "refused", said)
    strange = [name for name, value in found.values.items() if not math.isfinite(value)]
    if strange:
        found = Found({}, "refused", f"its {strange[0]} is {found.values[strange[0]]}")
    seconds = time.monotonic() - began
    values = dict(found.values)
    return replace(one, state=found.state, why=found.why, values=values, seconds=seconds), found.save

"""The loop of a search: ask, look whether it is known or forbidden, have it made, put it on record.

Several trials may be made at once. Trials are told in order of their numbers, and each is decided as soon as
all but the last few are told: what it is follows from the seed, its number and the record, whichever of the
others was quicker, and after a kill too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.errors import PipelineError
from .front import Front, front
from .goal import Goal
from .kept import Kept
from .making import Candidate, Found, Workers
from .rising import rise
from .space import Space
from .study import Asked, Study
from .tried import Tried

IDLE = 60  # trials in a row that made nothing, after which a space is taken to be tried out


@dataclass(frozen=True)
class Limits:
    """seconds: of all trials together, resumed ones too; trials: in all. None is no limit. A search also ends
    where many trials in a row found nothing that was not tried: the space has no more. at_once: how many are
    made at a time, which share the seconds."""

    seconds: float | None = None
    trials: int | None = None
    at_once: int = 1

    def spent(self, known: Sequence[Tried]) -> float:
        """Seconds of them."""
        return sum(one.seconds for one in known if one.state != "running") / self.at_once

    def left(self, known: Sequence[Tried], begun: int = 0) -> bool:
        """Whether one more may begin. begun: how many have that are not told."""
        done = [one for one in known if one.state != "running"]
        if len(done) >= IDLE and not any(map(_made, done[-IDLE:])):
            return False
        return (self.trials is None or len(done) + begun < self.trials) and (
            self.seconds is None or self.spent(known) < self.seconds
        )


@dataclass
class _Begun:
    """A trial that is not told. candidate: what is made. one: what is on record of it, so far. found: whether
    that is all; it is not while its candidate is made, or an equal one that began before."""

    asked: Asked
    one: Tried
    candidate: Candidate | None = None
    found: bool = True


def explore(
    study: Study,
    space: Space,
    goal: Goal,
    workers: Workers,
    kept: Kept,
    limits: Limits,
    after: Callable[[Sequence[Tried], Front], None] = lambda known, found: None,
) -> Front:
    """Try candidates until the budget is spent.

    Args:
        workers: what makes them.
        kept: where bundles of the front are kept, and the record of all.
        after: called at the beginning and after each trial, with all of them and the front.

    Returns:
        The front of everything in the study.
    """
    begun: dict[int, _Begun] = {}

    def looked() -> tuple[list[Tried], Front]:
        known = study.tried()
        found = front(known, goal)
        kept.update(known, found, study.recorded())
        after(known, found)
        return known, found

    known, found = looked()
    try:
        while True:
            while len(begun) < workers.ahead and limits.left(known, len(begun)):
                if not study.waits(begun) and (more := rise(study.tried(), goal, space)):
                    study.propose(more)
                asked = study.ask(space, begun)
                begun[asked.number] = one = _begin(asked, space, known, begun, study, workers)
                if one.candidate is not None:
                    workers.start(one.candidate, _seen(known, asked.number, workers))
            if not begun:
                return found
            first = begun[min(begun)]
            while first.candidate is not None and not first.found:
                number, made = workers.wait()
                _landed(begun[number], made, study, known, goal, kept, workers)
            if not first.found:
                first.one = _same(first.one, known) or first.one
            study.tell(first.asked, first.one)
            del begun[first.asked.number]
            known, found = looked()
    except KeyboardInterrupt:
        for each in begun.values():
            study.forgive(each.asked)
        raise


def _begin(
    asked: Asked,
    space: Space,
    known: Sequence[Tried],
    begun: Mapping[int, _Begun],
    study: Study,
    workers: Workers,
) -> _Begun:
    """What is known of a trial before it is made, and its candidate where it is to be."""
    if asked.recorded:
        return _Begun(asked, asked.recorded)
    runtime = str(asked.choices["runtime"])
    one = Tried(asked.number, "refused", asked.choices, runtime=runtime)
    try:
        pipeline = space.pipeline(asked.choices)
    except PipelineError as error:
        return _Begun(asked, replace(one, why=str(error)))
    one = replace(one, pipeline=str(pipeline))
    if same := _same(one, known):
        return _Begun(asked, same)
    if any(_alike(each.one, one) for each in begun.values()):
        return _Begun(asked, one, found=False)
    if not workers.apart and (asked := study.begin(asked)).recorded:
        return _Begun(asked, asked.recorded)
    candidate = Candidate(asked.number, pipeline, runtime, space.used(asked.choices))
    return _Begun(asked, one, candidate, found=False)


def _landed(
    begun: _Begun,
    made: Found | None,
    study: Study,
    known: Sequence[Tried],
    goal: Goal,
    kept: Kept,
    workers: Workers,
) -> None:
    """Keep what was found of a trial: its bundle, then the record. One that was lost is begun again."""
    number, candidate = begun.asked.number, begun.candidate
    assert candidate is not None
    if made is None:
        begun.asked = study.lost(begun.asked)
        if begun.asked.recorded is None:
            workers.start(candidate, _seen(known, number, workers))
            return
        begun.one, begun.found = begun.asked.recorded, True
        return
    begun.found = True
    values = dict(made.values)
    begun.one = replace(begun.one, state=made.state, why=made.why, values=values, seconds=made.seconds)
    others = [each for each in known if each.number != number]
    if made.save is not None and number in kept.wanted(front([*others, begun.one], goal)):
        began = time.monotonic()
        kept.save(number, made.save)
        begun.one = replace(begun.one, seconds=made.seconds + time.monotonic() - began)
    begun.asked = study.record(begun.asked, begun.one)


def _made(one: Tried) -> bool:
    """Whether a candidate was made for a trial."""
    return one.state not in ("same", "refused") or one.seconds > 0


def _seen(known: Sequence[Tried], number: int, workers: Workers) -> list[Tried]:
    """The trials that a trial may be decided from: told before it began, whenever that is."""
    return [one for one in known if one.number <= number - workers.ahead]


def _same(one: Tried, known: Sequence[Tried]) -> Tried | None:
    """The record of a trial whose pipeline an earlier one had."""
    for each in known:
        if _alike(each, one) and each.state in ("complete", "pruned", "refused"):
            return replace(one, state="same", same_as=each.number, values=each.values)
    return None


def _alike(one: Tried, other: Tried) -> bool:
    return bool(one.pipeline) and (one.pipeline, one.runtime) == (other.pipeline, other.runtime)

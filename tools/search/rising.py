"""Options of which more costs more and can only do better, as steps of training: little first, then more.

Every point is tried with the least of them. One that keeps the goal but for what it lost goes on to four
times as much, and from there to four times that: successive halving that waits for no rung to be full
(Jamieson and Talwalkar, 2016, arXiv:1502.07943; Li et al., 2020, arXiv:1810.05934). What going on won back
elsewhere says where it is hopeless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...passes.manager.registry import resolve
from ...passes.manager.varying import Between, Range
from .front import front
from .goal import Goal
from .space import Choices, Space
from .tried import Tried

TIMES = 4
SEEN = 3  # points that went on, before what is won back so is taken as known
ROOM = 1.5  # of the most that any of them won back
DROP = "drop"


def lowest(one: Range) -> Range:
    """What of a range a point begins with."""
    return replace(one, high=one.low) if isinstance(one, Between) and one.rising else one


def rise(known: Sequence[Tried], goal: Goal, space: Space) -> Choices | None:
    """The point to go on with; None where none is worth it, or the last trial went on with one.

    Args:
        known: trials that have begun, by number.
    """
    if known and _risen(known[-1].choices, space):
        return None
    begun = [one.choices for one in known]
    for one in _worth(known, goal):
        more = _more(one.choices, space)
        if more != one.choices and more not in begun:
            return more
    return None


def rises(choices: Choices) -> bool:
    """Whether a candidate of these choices may go on. choices: those that its pipeline depends on."""
    return any(value * TIMES <= declared.high for _, value, declared in _rising(choices))


def hopeless(drop: float, most: float, known: Sequence[Tried]) -> bool:
    """Whether going on won't do, by what it won back elsewhere."""
    gains = _gains(known)
    return len(gains) >= SEEN and drop - ROOM * max(0.0, *gains) > most


def _worth(known: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Trials that would be on the front if they had lost less, the nearest to the goal first; where losses
    are to become small, the front behind them."""
    members = front(known, goal).members
    found = list(members) if any(one.metric == DROP for one in goal.minimise) else []
    limit = next((limit for limit in goal.limits if limit.of.metric == DROP), None)
    if limit is None:
        return found
    near = [
        one
        for one in known
        if one.valued
        and 0 < limit.excess(one.values) == goal.distance(one.values)
        and not hopeless(one.values[DROP], limit.most, known)
        and not any(_beats(goal, each, one) for each in members)
    ]
    return sorted(near, key=lambda one: (limit.excess(one.values), one.number)) + found


def _beats(goal: Goal, one: Tried, other: Tried) -> bool:
    """In all that becomes small, losses aside."""
    pairs = zip(goal.minimise, goal.objectives(one.values), goal.objectives(other.values), strict=True)
    return all(mine <= theirs for of, mine, theirs in pairs if of.metric != DROP)


def _gains(known: Sequence[Tried]) -> list[float]:
    """Points won back by going on, each time."""
    drops = {_key(one.choices): one.values[DROP] for one in known if one.valued and DROP in one.values}
    before = {
        _key({**one.choices, **{name: value // TIMES for name, value, _ in _rising(one.choices)}}): one
        for one in known
        if one.valued and DROP in one.values
    }
    return [drops[key] - one.values[DROP] for key, one in before.items() if key in drops]


def _key(choices: Choices) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(choices.items()))


def _more(choices: Choices, space: Space) -> Choices:
    """The next point above one: itself where there is none."""
    more = dict(choices)
    for name, value, _ in _rising(space.used(choices)):
        left = space.dimensions[name]
        if isinstance(left, Between) and left.rising and value * TIMES <= left.high:
            more[name] = value * TIMES
    return more


def _risen(choices: Choices, space: Space) -> bool:
    spaces = ((value, space.dimensions[name]) for name, value, _ in _rising(choices))
    return any(isinstance(left, Between) and left.rising and value > left.low for value, left in spaces)


def _rising(choices: Choices) -> list[tuple[str, int, Between]]:
    """Of the choices that go on: name, value, and the range that the pass declares."""
    found = []
    for name, value in choices.items():
        owner, _, option = name.partition(".")
        declared = resolve(owner).varies.get(option) if option else None
        if isinstance(declared, Between) and declared.rising:
            found.append((name, int(value), declared))
    return found

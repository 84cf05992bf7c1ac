"""The Pareto front of what was tried: bundles than which none is better in everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .goal import Goal
from .tried import Tried


@dataclass(frozen=True)
class Front:
    """members: feasible, in order of the first objective. best: of each objective, by its key, a member's
    number. nearest: the trial nearest to the goal where nothing meets it, and its distance.
    """

    members: tuple[Tried, ...]
    best: dict[str, int]
    nearest: Tried | None = None
    distance: float = 0.0

    @property
    def kept(self) -> tuple[int, ...]:
        """The trials whose bundles are kept."""
        return tuple(one.number for one in self.members) or ((self.nearest.number,) if self.nearest else ())


def front(tried: Iterable[Tried], goal: Goal) -> Front:
    """Of the trials that have values, those that keep every limit and are dominated by none that does.

    Of two with equal objectives the earlier one stays.
    """
    valued = sorted((one for one in tried if one.valued), key=lambda one: one.number)
    feasible = [one for one in valued if goal.distance(one.values) == 0]
    if not feasible:
        if not valued:
            return Front((), {})
        nearest = min(valued, key=lambda one: goal.distance(one.values))
        return Front((), {}, nearest, goal.distance(nearest.values))
    points = [goal.objectives(one.values) for one in feasible]
    members = [one for number, one in enumerate(feasible) if not _beaten(points, number)]
    members.sort(key=lambda one: goal.objectives(one.values))
    best = {}
    for place, wanted in enumerate(goal.minimise):
        values = [goal.objectives(one.values)[place] for one in members]
        best[wanted.key] = members[values.index(min(values))].number
    return Front(tuple(members), best)


def _beaten(points: Sequence[tuple[float, ...]], number: int) -> bool:
    mine = points[number]
    return any(
        all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or place < number)
        for place, other in enumerate(points)
        if place != number
    )

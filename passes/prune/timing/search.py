"""The structure that loses least among those that meet the time, checked on what is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ....ir.program import Program
from ...common.allocate import allocate
from ...manager.contract import Context, Feed
from ..importance.choose import Method
from ..importance.scores import scores
from ..refit.losses import losses
from ..surgery.cut import remove
from ..surgery.units import Units
from .latency import Timing, table

TRIES = 5  # structures built and timed for a goal, at most
RESERVE = 1.02  # aimed at beyond the goal: what repeated measurements differ by
ENOUGH = 1.05  # this much beyond the goal is quality given away
JUDGED = 8  # feeds that losses are taken on, at most

Kept = tuple[int, ...]  # how many units each block keeps


class Search:
    """What to remove from a program for a speed-up.

    timing: of programs beside the uncut one. measured: whether the latency table was. tried: the structures
    timed and their speed-ups, of the last time: as cut, or as built where they were.

    Args:
        program: fx, in which the units were found; it is not changed.
        feeds: real inputs.
        method, workload, choices, damping: as of `prune-to-latency`.
    """

    def __init__(
        self,
        program: Program,
        units: Sequence[Units],
        feeds: Sequence[Feed],
        context: Context,
        *,
        method: Literal["zip"] | Method,
        workload: str,
        choices: int,
        damping: float,
    ) -> None:
        self._program, self._units, self._context = program, units, context
        self.timing = Timing(program, context, workload)
        known = table(program, units, choices, self.timing, context, workload)
        orders = None
        if method != "zip":
            ranked = scores(program, units, method, context)
            orders = [[int(unit) for unit in each.argsort(kind="stable")] for each in ranked]
        counts = [sorted(times) for times in known.times]
        judged = min(JUDGED, len(feeds))
        found = losses(program, units, counts, feeds, judged, orders, damping, progress=context.progress)
        self._times, self.measured = known.times, known.measured
        self._lost, self._orders = [one.loss for one in found], [one.order for one in found]
        self.tried: dict[Kept, float] = {}

    def going(self, kept: Kept) -> dict[Units, Sequence[int]]:
        """The units that go."""
        return {
            one: order[: one.size - count]
            for one, order, count in zip(self._units, self._orders, kept, strict=True)
            if count < one.size
        }

    def lost(self, kept: Kept) -> float:
        """The sum of the blocks' losses."""
        return sum(row[count] for row, count in zip(self._lost, kept, strict=True))

    def best(self, goal: float) -> Kept:
        """The structure that loses least of those timed that reach a speed-up, or else the fastest."""
        aim = goal * RESERVE
        smallest = tuple(min(times, key=lambda count: (-times[count], -count)) for times in self._times)
        for number in range(TRIES):
            self._context.progress("timing structures", number, TRIES)
            kept = cheapest(self._lost, self._times, 1 - 1 / aim) or smallest
            if kept not in self.tried:
                candidate = self._program.clone()
                remove(candidate, self.going(kept))
                self.tried[kept] = self.timing(candidate)
            if goal <= self.tried[kept] <= goal * ENOUGH:
                break
            aim = max(1.001, aim * goal * RESERVE / self.tried[kept])
        enough = [kept for kept, ratio in self.tried.items() if ratio >= goal]
        return min(enough, key=self.lost) if enough else max(self.tried, key=lambda kept: self.tried[kept])


def cheapest(
    lost: Sequence[Mapping[int, float]], times: Sequence[Mapping[int, float]], needed: float
) -> tuple[int, ...] | None:
    """How many units each block keeps, for the least sum of losses.

    Args:
        lost, times: for each block, by how many it keeps: its loss, and the time it saves.
        needed: the time to save, in all.

    Returns:
        None where nothing saves so much.
    """
    slack = sum(max(row.values()) for row in times) - needed
    if slack <= 0:
        return None
    costs = [{count: max(row.values()) - time for count, time in row.items()} for row in times]
    found = allocate(
        [{count: row[count] for count in cost} for row, cost in zip(lost, costs, strict=True)], costs, slack
    )
    return tuple(found) if found is not None else None

"""The structure that loses least among those that meet the time, checked on what is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ....ir.program import Program
from ...common.to_budget import Kept, nearest
from ...lower.timed.timing import Timing
from ...manager.contract import Context, Feed
from ..importance.choose import Method
from ..importance.scores import scores
from ..refit.losses import losses
from ..surgery.cut import remove
from ..surgery.separate import rejoin
from ..surgery.units import Units
from .latency import table

JUDGED = 8  # feeds that losses are taken on, at most


class Search:
    """What to remove from a program for a speed-up.

    timing: of programs beside the uncut one. times, lost: by how much each block keeps, what it saves of the
    whole's time and what is lost at the outputs. measured: whether the latency table was. tried: structures
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
        self.timing = Timing(program, context, workload, rejoin)
        known = table(program, units, choices, self.timing, context, workload)
        orders = None
        if method != "zip":
            ranked = scores(program, units, method, context)
            orders = [[int(unit) for unit in each.argsort(kind="stable")] for each in ranked]
        counts = [sorted(times) for times in known.times]
        judged = min(JUDGED, len(feeds))
        found = losses(program, units, counts, feeds, judged, orders, damping, progress=context.progress)
        self.times, self.measured = known.times, known.measured
        self.lost, self._orders = [one.loss for one in found], [one.order for one in found]
        self.tried: dict[Kept, float] = {}

    def going(self, kept: Kept) -> dict[Units, Sequence[int]]:
        """The units that go."""
        return {
            one: order[: one.size - count]
            for one, order, count in zip(self._units, self._orders, kept, strict=True)
            if count < one.size
        }

    def best(self, goal: float) -> Kept:
        """The structure that loses least of those timed that reach a speed-up, or else the fastest."""

        def timed(kept: Kept) -> float:
            candidate = self._program.clone()
            remove(candidate, self.going(kept))
            return self.timing(candidate)

        return nearest(goal, self.lost, self.times, timed, self.tried, self._context.progress)

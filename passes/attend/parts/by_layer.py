"""What each kind of attention loses and saves in each layer, and the best choice for a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...common.outputs import distance
from ...common.to_budget import Kept, nearest
from ...lower.timed.timing import Timing
from ...manager.contract import Context, Feed
from .kind import Kind
from .long_text import long_text
from .site import Site, sites
from .substitute import put, tensors, unfit
from .timed import timing
from .write import written

JUDGED = 8  # feeds that losses are taken on, at most
BUILDS, PROCESSES = 5, 3  # of what was chosen: how often it is chosen anew, and the processes that time it
FULL = 0


@dataclass(frozen=True)
class Choice:
    """kinds: by the number of a layer, of those that are substituted. speedup: measured with them."""

    kinds: Mapping[int, str]
    speedup: float


class ByLayer:
    """The choices of a program's self-attentions.

    Args:
        program: fx; it is not changed but by `write`.
        kinds: by the name that they are told by. feeds: real inputs.
        ready: what is done in place to a copy of each program before it is timed.

    Attributes:
        sites: those that some kind fits, by number. count: of self-attentions. notes: why others are left.
    """

    def __init__(
        self,
        program: Program,
        kinds: Mapping[str, Kind],
        feeds: Sequence[Feed],
        context: Context,
        seed: int,
        ready: Callable[[Program], None],
    ) -> None:
        self._ready = ready
        self._program, self._kinds, self._feeds, self._context = program, kinds, feeds, context
        long_text(program)
        found, reasons = sites(program)
        self.count = len(found) + len(reasons)
        self.sites: dict[int, Site] = {}
        self._own: dict[tuple[int, str], Mapping[str, Tensor]] = {}
        for site in found:
            for name, kind in kinds.items():
                if why := unfit(kind, site):
                    reasons[site.number] = f"{site.name} can't be {name}: {why}"
                else:
                    self.sites[site.number] = site
                    self._own[site.number, name] = tensors(program, site, kind, feeds, seed)
        self.notes = tuple(reasons[number] for number in sorted(reasons))
        self._saved: dict[str, float] = {}

    def planned(self, goal: float, workload: str) -> Choice:
        """The first that is `goal` times as fast when it is timed for good, or else the fastest."""
        clock = timing(self._program, self._context, workload, self._ready)
        numbers, lost, times = list(self.sites), self._losses(), self._times(clock)
        names = (None, *self._kinds)
        named = lambda kept: {n: name for n, k in zip(numbers, kept, strict=True) if (name := names[k])}
        tried: dict[Kept, float] = {}
        built: dict[Kept, float] = {}
        for _ in range(BUILDS):
            kept = nearest(
                goal, lost, times, lambda kept: clock(self._made(named(kept))), tried, self._context.progress
            )
            if kept in built:  # nothing is faster
                break
            made = self._made(named(kept))
            tried[kept] = built[kept] = clock(made, PROCESSES) if any(kept) else 1.0
            if built[kept] >= goal:
                break
        kept = max(built, key=lambda kept: built[kept])
        return Choice(named(kept), built[kept])

    def write(self, program: Program, chosen: Mapping[int, str]) -> None:
        """Substitutes in place."""
        pairs = [
            (site, written(program, site, self._kinds[name], self._own[site.number, name]))
            for site in sites(program)[0]
            if (name := chosen.get(site.number)) is not None
        ]
        put(program, pairs)

    def said(self) -> list[str]:
        """A sentence for each kind that doesn't pay at the length of the call."""
        return [
            f"{name} saves no time at this length: full attention is as fast"
            for name, saved in self._saved.items()
            if saved <= 0
        ]

    def _made(self, chosen: Mapping[int, str]) -> Program:
        candidate = self._program.clone()
        if chosen:
            self.write(candidate, chosen)
        return candidate

    def _losses(self) -> list[dict[int, float]]:
        """By kind, how far outputs are away with that layer alone substituted."""
        feeds = self._feeds[:JUDGED]
        expected = Lockstep(evaluated(self._program), feeds).outputs()
        result = []
        for done, number in enumerate(self.sites):
            self._context.progress("weighing layers", done, len(self.sites))
            lost = {FULL: 0.0}
            for place, name in enumerate(self._kinds, 1):
                if (number, name) in self._own:
                    candidate = evaluated(self._made({number: name}))
                    lost[place] = distance(candidate, feeds, expected, Lockstep(candidate, feeds).outputs())
            result.append(lost)
        return result

    def _times(self, clock: Timing) -> list[dict[int, float]]:
        """By kind, what a layer saves of the whole's time; below 0 where full attention is faster."""
        result: dict[int, dict[int, float]] = {number: {FULL: 0.0} for number in self.sites}
        for place, name in enumerate(self._kinds, 1):
            self._context.progress(f"timing {name}", place - 1, len(self._kinds))
            mine = [number for number in self.sites if (number, name) in self._own]
            if not mine:
                continue
            self._saved[name] = 1 - 1 / clock(self._made(dict.fromkeys(mine, name)))
            for number in mine:
                result[number][place] = self._saved[name] / len(mine)
        return list(result.values())

"""How many tokens stay behind each layer for a latency, so that the outputs move least.

What a share behind one layer alone loses is measured; behind a layer that is given fewer tokens already, only
what goes there counts. What tokens cost is measured on the clock, with all layers behind the first cut alike,
and shared out by multiply-adds. Both are taken to add up; where they don't, what is built is timed, the
budget is corrected and the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy.optimize import isotonic_regression

from ....ir.blocks import recognise
from ....ir.evaluated import evaluated
from ....ir.program import Program
from ....ir.view import view
from ...common.lockstep import Lockstep
from ...common.outputs import distance
from ...common.to_budget import ENOUGH, RESERVE, TRIES
from ...lower.timed.timing import Timing
from ...manager.contract import Context, Feed
from .ranked import THOUSAND
from .shifted import Shifted
from .sites import Site, tokens

Shares = Mapping[int, int]  # thousandths, by layer
PROCESSES = 3  # that time what was chosen
JUDGED = 8  # feeds that losses are taken on, at most
ALIKE = 1000  # parts of the gain that is needed, within which sums are taken to be equal


class Search:
    """Schedules of a program.

    Args:
        program: fx; it is not changed. feeds: real inputs.
        workload, choices, kind: as of `prune-tokens`.
    """

    def __init__(
        self,
        program: Program,
        feeds: Sequence[Feed],
        context: Context,
        workload: str,
        choices: int,
        kind: str,
    ) -> None:
        self._program, self._feeds, self._context = program, feeds[:JUDGED], context
        self._kind = kind
        seen = view(program)
        self._sites = tokens(program, seen, recognise(seen)).sites
        grid = np.linspace(0, THOUSAND, choices + 2)[1:-1]
        self._grid = [THOUSAND, *sorted({max(1, round(float(share))) for share in grid}, reverse=True)]
        self._timing = Timing(program, context, workload)
        self._spent = self._parts()
        self._saved = self._times()
        self._lost = self._losses()

    def planned(self, speedup: float) -> tuple[Shares, float]:
        """(what stays, how many times as fast it is): what loses least and is fast enough, or the fastest."""
        aim, tried = speedup * RESERVE, dict[tuple[tuple[int, int], ...], float]()
        for number in range(TRIES):
            self._context.progress("timing schedules of tokens", number, TRIES)
            shares = self._cheapest(1 - 1 / aim)
            key = tuple(shares.items())
            if key in tried:
                break
            tried[key] = self._timing(self._made(shares), PROCESSES) if shares else 1.0
            if speedup <= tried[key] <= speedup * ENOUGH:
                break
            aim = max(1.001, aim * speedup * RESERVE / tried[key])
        enough = [key for key in tried if tried[key] >= speedup]
        best = (
            min(enough, key=lambda key: self._loss(dict(key)))
            if enough
            else max(tried, key=tried.__getitem__)
        )
        return dict(best), tried[best]

    def _made(self, shares: Shares) -> Program:
        twin = self._program.clone()
        seen = view(twin)
        found = tokens(twin, seen, recognise(seen))
        chosen = {site: shares[site.number] for site in found.sites if site.number in shares}
        Shifted(twin, found, chosen, self._kind).run()
        return twin

    @cached_property
    def _length(self) -> float:
        """Tokens of a row of the feeds, on average."""
        mask = next((spec.name for spec in self._program.inputs if spec.role == "attention_mask"), None)
        if mask is None or not self._feeds:
            return 128.0
        return float(np.mean([feed[mask].shape[1] for feed in self._feeds]))

    def _parts(self) -> list[tuple[float, float]]:
        """By site, the shares of all layers' multiply-adds that its attention, and all up to the next one's,
        make."""
        costs = [_cost(site, self._length) for site in self._sites]
        rest = _between(self._program, self._sites)
        total = sum(costs) + sum(rest)
        return [(cost / total, more / total) for cost, more in zip(costs, rest, strict=True)]

    def _times(self) -> dict[int, float]:
        """By share, what a layer with so many tokens takes less of its own time."""
        first = self._sites[0].number
        below = sum(a + f for a, f in self._spent) - self._spent[0][0]
        saved = []
        for number, share in enumerate(self._grid[1:]):
            self._context.progress("timing shares of tokens", number, len(self._grid) - 1)
            saved.append((1 - 1 / self._timing(self._made({first: share}))) / below)
        even = isotonic_regression(saved, increasing=True).x if saved else ()
        return {THOUSAND: 0.0, **{g: float(one) for g, one in zip(self._grid[1:], even, strict=True)}}

    def _losses(self) -> list[dict[int, float]]:
        """By share, how far outputs are away where only that layer lets tokens end."""
        expected = Lockstep(evaluated(self._program), self._feeds).outputs()
        result = []
        for number, site in enumerate(self._sites):
            self._context.progress("weighing tokens behind layers", number, len(self._sites))
            lost = []
            for share in self._grid[1:]:
                candidate = evaluated(self._made({site.number: share}))
                found = Lockstep(candidate, self._feeds).outputs()
                lost.append(distance(candidate, self._feeds, expected, found))
            even = isotonic_regression(lost, increasing=True).x
            result.append({THOUSAND: 0.0, **dict(zip(self._grid[1:], map(float, even), strict=True))})
        return result

    def _cheapest(self, needed: float) -> Shares:
        """What loses least of what saves such a share of the time, or else what saves most."""
        best = path(self._grid, self._lost, self._step, needed)
        return {
            site.number: share
            for site, share, above in zip(self._sites, best, [THOUSAND, *best], strict=False)
            if share < above
        }

    def _step(self, number: int, above: int, share: int) -> float:
        attention, rest = self._spent[number]
        return attention * self._saved[above] + rest * self._saved[share]

    def _loss(self, shares: Shares) -> float:
        above, total = THOUSAND, 0.0
        for number, site in enumerate(self._sites):
            share = shares.get(site.number, above)
            total += self._lost[number][share] - self._lost[number][above]
            above = share
        return total


def path(
    grid: Sequence[int],
    lost: Sequence[Mapping[int, float]],
    gained: Callable[[int, int, int], float],
    needed: float,
) -> list[int]:
    """Of ever fewer tokens, one of `grid` behind each layer, the least loss that gains enough; where
    none does, what gains most.

    A weight of gains against losses would find those of a convex hull alone: of few layers, that may be far
    more gain than is needed, and more loss.

    Args:
        grid: THOUSAND among them. lost: by share, of each layer alone. gained: of (layer, share that it is
            given, share that it leaves). needed: of their sum. Sums alike to a thousandth of it are taken to
            be equal on the way.
    """
    known: dict[tuple[int, int], tuple[float, float, list[int]]] = {(THOUSAND, 0): (0.0, 0.0, [])}
    for number, losses in enumerate(lost):
        reached: dict[tuple[int, int], tuple[float, float, list[int]]] = {}
        for (above, _), (cost, gain, shares) in known.items():
            for share in (one for one in grid if one <= above):
                total, more = cost + losses[share] - losses[above], gain + gained(number, above, share)
                key = share, int(ALIKE * min(more / needed, 1.0))  # enough is enough
                if key not in reached or (total, -more) < (reached[key][0], -reached[key][1]):
                    reached[key] = total, more, [*shares, share]
        known = reached
    enough = [found for found in known.values() if found[1] >= needed]
    if enough:
        return min(enough, key=lambda found: found[0])[2]
    return max(known.values(), key=lambda found: found[1])[2]


def _cost(site: Site, length: float) -> float:
    """Multiply-adds a token of an attention."""
    a = site.attention
    linear = {x.root: x.in_features * x.out_features for x in (a.q, a.k, a.v, a.o) if x is not None}
    return sum(linear.values()) + 2 * length * a.heads * a.head_dim


def _between(program: Program, sites: Sequence[Site]) -> list[float]:
    """Multiply-adds a token of what lies between each attention and the next."""
    seen = view(program)
    order = {value.name: number for number, value in enumerate(seen.values)}
    ends = [order[site.cut.name] for site in sites]
    found = [0.0] * len(sites)
    for block in recognise(seen).feed_forward:
        before = [number for number, end in enumerate(ends) if end <= order[block.root.name]]
        for linear in {x.root: x for x in (block.up, block.gate, block.down) if x is not None}.values():
            if before:
                found[before[-1]] += linear.in_features * linear.out_features
    return found

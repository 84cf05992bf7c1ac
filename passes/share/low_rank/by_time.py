"""Ranks that pay on the clock: of those given, or those that lose least for the time asked for.

Layers that take equally long are timed together at a few ranks; what each alone loses is measured at the
program's outputs, since a layer's own products say little: where one direction holds nearly all of them, a
rank of 1 keeps their energy and loses everything else. What is chosen is built and timed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...common.outputs import distance
from ...common.to_budget import Kept, nearest
from ...lower.timed.timing import Timing
from ...manager.contract import Context, Feed
from .layers import Layers, factorised
from .truncated import Spectrum

WHOLE = 0  # the rank of what stays one product
JUDGED = 8  # feeds that losses are taken on, at most
BUILDS, PROCESSES = 5, 3  # of what was chosen: how often it is chosen anew, and the processes that time it
WIDE, STEP = 128, 16  # from such ranks on, they are multiples of a vector register's worth


@dataclass(frozen=True)
class Planned:
    """ranks: by the number of a layer, of those to be factorised. speedup: measured with them."""

    ranks: Mapping[int, int]
    speedup: float


class ByTime:
    """The choices of a program's layers: what each saves and what it loses.

    Args:
        program: fx, in which the layers were found; it is not changed.
        known: of the layers. feeds: real inputs.
        workload, choices: as of `factorise-linear`.
    """

    def __init__(
        self,
        program: Program,
        found: Sequence[Layers],
        known: Sequence[Spectrum],
        feeds: Sequence[Feed],
        context: Context,
        *,
        workload: str,
        choices: int,
    ) -> None:
        self._program, self._known, self._context = program, known, context
        self._timing = Timing(program, context, workload)
        grids = [grid(one.most, choices) for one in found]
        self._times = self._saved(found, grids)
        self._lost = self._losses(grids, feeds[:JUDGED])

    def planned(self, speedup: float) -> Planned:
        """The first that is as fast as asked when it is timed for good, or else the fastest."""
        tried: dict[Kept, float] = {}
        built: dict[Kept, float] = {}
        for _ in range(BUILDS):
            kept = nearest(
                speedup, self._lost, self._times, lambda kept: self._timing(self._made(kept)), tried,
                self._context.progress,
            )  # fmt: skip
            if kept in built:  # nothing is faster
                break
            tried[kept] = built[kept] = self._timing(self._made(kept), PROCESSES)
            if built[kept] >= speedup:
                break
        kept = max(built, key=lambda kept: built[kept])
        return Planned(_ranks(kept), built[kept])

    def _made(self, kept: Kept) -> Program:
        return factorised(self._program, self._known, _ranks(kept))

    def _saved(self, found: Sequence[Layers], grids: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """By rank, what a layer takes less of the whole's time; below 0 where two products are slower."""
        kinds: dict[Hashable, list[int]] = {}
        for number, one in enumerate(found):
            given = [str(site[0].input.shape) for site in one.sites]
            kinds.setdefault((one.rows, one.columns, len(one.matrices), *given), []).append(number)
        result: list[dict[int, float]] = [{WHOLE: 0.0} for _ in found]
        total, done = sum(len(grids[numbers[0]]) for numbers in kinds.values()), 0
        for numbers in kinds.values():
            saved = []
            for rank in grids[numbers[0]]:
                self._context.progress(f"timing layers of rank {rank}", done, total)
                candidate = factorised(self._program, self._known, dict.fromkeys(numbers, rank))
                saved.append((1 - 1 / self._timing(candidate)) / len(numbers))
                done += 1
            # A larger rank never takes less time; where it seems to, the clock was wrong.
            even = isotonic_regression(saved, increasing=False).x if saved else ()
            for number in numbers:
                result[number] |= {r: float(one) for r, one in zip(grids[number], even, strict=True)}
        return result

    def _losses(self, grids: Sequence[Sequence[int]], feeds: Sequence[Feed]) -> list[dict[int, float]]:
        """By rank, how far outputs are away with that layer alone factorised."""
        expected = Lockstep(evaluated(self._program), feeds).outputs()
        result = []
        for number, ranks in enumerate(grids):
            self._context.progress("weighing layers", number, len(grids))
            lost = {WHOLE: 0.0}
            for rank in ranks:
                candidate = evaluated(factorised(self._program, self._known, {number: rank}))
                lost[rank] = distance(candidate, feeds, expected, Lockstep(candidate, feeds).outputs())
            result.append(lost)
        return result


def grid(most: int, choices: int) -> list[int]:
    """So many ascending ranks, or fewer, evenly between none and the largest of any use."""
    step = STEP if most >= WIDE else 1
    wanted = np.rint(np.linspace(0, most, choices + 2)[1:-1] / step).astype(int) * step
    return sorted({int(rank) for rank in wanted if 0 < rank <= most})


def _ranks(kept: Kept) -> dict[int, int]:
    return {number: rank for number, rank in enumerate(kept) if rank != WHOLE}


def faster(
    program: Program,
    found: Sequence[Layers],
    known: Sequence[Spectrum],
    ranks: dict[int, int],
    context: Context,
) -> tuple[dict[int, int], list[str]]:
    """The ranks of those shapes that make the program faster, all of one shape measured together; what was
    chosen for one graph of a bundle holds for all of them."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for number in ranks:
        shapes.setdefault((found[number].rows, found[number].columns), []).append(number)
    chosen = {} if context.chosen is None else context.chosen
    timing: Timing | None = None
    kept: dict[int, int] = {}
    notes = []
    for done, (shape, numbers) in enumerate(shapes.items()):
        mine = {number: ranks[number] for number in numbers}
        key = ("factorise-linear", shape, *mine.items())
        if key not in chosen:
            context.progress("timing factorised layers", done, len(shapes))
            timing = timing or Timing(program, context, "")
            chosen[key] = timing(factorised(program, known, mine))
        if chosen[key] > 1:
            kept |= mine
        else:
            what = f"{len(numbers)} of {shape[0]}x{shape[1]}, {found[numbers[0]].name} the first, stay"
            notes.append(f"{what}: with them factorised a call is {chosen[key]:.2f} times as fast")
    return kept, notes

"""What each block loses with fewer units: its outputs' error, with the block alone cut and refitted.

The losses of blocks add up nearly enough for a knapsack over them, and the loss is taken where the user sees
it, at the program's outputs: a layer-wise error (ZipLM: Kurtic et al., 2023, arXiv:2302.04089, section 3.2)
says nothing about how much later layers mind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...common.outputs import distance, rows
from ...common.projections import OutputProjection, projections
from ...common.surgeon import Moments, Surgeon
from ...manager.contract import Feed
from ..surgery.units import Units

TOGETHER = 8  # neurons that go at a time: of hundreds, and costs of so few hardly change each other
Scores = Callable[[Units], np.ndarray]


@dataclass(frozen=True)
class Losses:
    """order: every unit, in the order of removal. loss: of the outputs, by how many units are kept."""

    order: list[int]
    loss: dict[int, float]


def losses(
    program: Program,
    found: Sequence[Units],
    counts: Sequence[Sequence[int]],
    feeds: Sequence[Feed],
    judged: int,
    orders: Sequence[Sequence[int]] | None = None,
    damping: float = 0.01,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> list[Losses]:
    """For each of the units found, in which order they go and what is lost with so many left.

    Args:
        program: fx; it is not changed.
        counts: how many may be kept, for each.
        feeds: to take moments on, all of them; to take losses on, the first `judged`.
        orders: in which units go; None: as the structured optimal brain surgeon removes them (surgeon.py).

    Raises:
        DataError: no rows, or rows that are not finite.
    """
    live = evaluated(program.clone())
    own = {one.root.name: one for one in projections(live)[0]}
    blocks = [[own[output.root] for output in units.outputs if output.root in own] for units in found]
    expected = Lockstep(live, feeds[:judged]).outputs()
    run = Lockstep(live, feeds, [one.operand for block in blocks for one in block])
    result = []
    for number, (units, block) in enumerate(zip(found, blocks, strict=True)):
        progress("weighing blocks", number, len(found))
        surgeons = []
        for one in block:
            run.reached(one.operand)
            surgeons.append(
                Surgeon(
                    _own_moments(live, feeds, run, one), one.matrix(live.graph), list(units.places), damping
                )
            )
        order = (
            list(orders[number])
            if orders
            else surgeons[0].order(TOGETHER if units.places.shape[1] == 1 else 1)
        )
        lost = {units.size: 0.0}
        for count in counts[number]:
            if count == units.size:
                continue
            before = [one.matrix(live.graph) for one in block]
            for one, surgeon in zip(block, surgeons, strict=True):
                one.write(live.graph, surgeon.fitted(order[: units.size - count]))
            lost[count] = distance(live, feeds, expected, run.fork(judged).outputs())
            for one, matrix in zip(block, before, strict=True):
                one.write(live.graph, matrix)
        run.let_go(*(one.operand for one in block))
        result.append(Losses(order, lost))
    return result


def _own_moments(program: Program, feeds: Sequence[Feed], run: Lockstep, one: OutputProjection) -> Moments:
    """Towards what the projection gives as it is."""
    matrix = torch.from_numpy(one.matrix(program.graph)).float()
    moments = Moments.none()
    for number, feed in enumerate(feeds):
        x = rows(program, feed, run.value(one.operand, number))
        full = torch.cat([x, x.new_ones(len(x), 1)], dim=1) if one.bias is not None else x
        moments = moments.plus(x, full @ matrix, constant=one.bias is not None)
    return moments

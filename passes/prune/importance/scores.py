"""How much each unit matters: one number a unit, higher is dearer, comparable between blocks of one kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.evaluated import evaluated
from ....ir.ops.coupling import Group
from ....ir.program import Program
from ...common.calibration import check
from ...manager.contract import Context
from ..surgery.ties import memory
from ..surgery.units import Units
from .choose import Method
from .contribution import contributions
from .gradients import elimination, gradients
from .masks import masked


def scores(program: Program, units: Sequence[Units], method: Method, context: Context) -> list[np.ndarray]:
    """For each block a float64 array (units,).

    magnitude: the L2 norm of all weights that go with a unit (Han et al., 2015, arXiv:1506.02626).
    taylor, fisher, fisher-block: from the gradient of a mask (gradients.py, block_fisher.py).
    activation: what a unit adds to the stream (contribution.py).
    random: uniform, by the context's seed; the control.

    Raises:
        DataError: the calibration data are empty, constant, NaN, or do not fit the program.
    """
    if method == "random":
        rng = np.random.default_rng(context.seed)
        return [rng.random(one.size) for one in units]
    if method == "magnitude":
        return [magnitude(one.groups) if one.groups else np.zeros(1) for one in units]
    check(program, context.calibration)
    if method == "activation":
        return contributions(program, units, context)
    return by_gradients(gradients(program, masked(evaluated(program), units), context), method)


def by_gradients(found: Sequence[np.ndarray], method: Method) -> list[np.ndarray]:
    """Scores from (samples, units) of mask gradients."""
    if method == "taylor":
        return [np.abs(each).mean(axis=0) for each in found]
    if method == "fisher":
        return [np.square(each).mean(axis=0) for each in found]
    return [elimination(each.T @ each / len(each)) for each in found]


def magnitude(groups: Sequence[Group]) -> np.ndarray:
    """(units,): the norm of each unit's weights; a tensor that several layers read counts once.

    Args:
        groups: that go together.
    """
    size = groups[0].size
    total = np.zeros(size)
    seen = set()
    for group in groups:
        for member in group.members:
            tensor = member.value.tensor
            if tensor is None or not tensor.is_floating_point():
                continue
            key = (memory(tensor), member.axis, member.map)
            if key not in seen:
                seen.add(key)
                numbers = member.value.const
                assert numbers is not None
                squares = np.square(numbers.astype(np.float64))
                along = squares.sum(axis=tuple(a for a in range(squares.ndim) if a != member.axis))
                total += [along[member.map.indices([unit])].sum() for unit in range(size)]
    return np.sqrt(total)

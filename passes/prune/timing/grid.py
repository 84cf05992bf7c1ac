"""How many units each kind of block may keep: few enough to time, and widths that runtimes like."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ....ir.program import Program
from ..surgery.units import Units

WIDE, WIDTHS = 512, 32  # from so many units on, numbers are multiples of a vector register's worth or two


def grid(size: int, choices: int) -> list[int]:
    """Ascending: 0, `choices` numbers between, and `size`; all of them where there are fewer."""
    step = WIDTHS if size >= WIDE else 1
    wanted = np.rint(np.linspace(0, size, choices + 2) / step).astype(int) * step
    return sorted({0, size, *(int(count) for count in wanted[:-1] if count < size)})


def kinds(program: Program, found: Sequence[Units]) -> list[Hashable]:
    """What is equal for blocks that take equally long with equally many units: of which kind they are, and
    the shapes of what they read and of their projections' weights, apart from the batch's."""
    shapes = {node.name: getattr(node.meta.get("val"), "shape", ()) for node in program.graph.graph.nodes}
    return [
        (
            units.kind,
            units.size,
            tuple(
                (str(tuple(shapes[output.operand])), tuple(shapes[output.weight])) for output in units.outputs
            ),
        )
        for units in found
    ]

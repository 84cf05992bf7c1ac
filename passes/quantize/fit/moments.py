"""What calibration tells of the activations that enter a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.errors import DataError
from ....ir.program import Program
from ...common.calibration import check, fits, real_rows
from ...common.cascade import Cascade
from ...manager.contract import Context, Feed
from ..codes.stored import WeightUse


@dataclass(frozen=True)
class Moments:
    """Sums over the rows that enter a product at real tokens.

    gram: X^T X, float64 (in, in). magnitude: of |x|, float64 (in,). rows: how many.
    """

    gram: np.ndarray
    magnitude: np.ndarray
    rows: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram, self.magnitude + other.magnitude, self.rows + other.rows
        )  # fmt: skip


def calibration(program: Program, context: Context) -> list[Feed]:
    """The feeds that fit the program.

    Raises:
        DataError: nothing can be learned from them.
    """
    check(program, context.calibration)
    return [feed for number, feed in enumerate(context.calibration) if fits(program, number, feed)]


def moments(program: Program, cascade: Cascade, use: WeightUse, feeds: Sequence[Feed]) -> Moments:
    """Of what enters a weight at one of its uses; where no row at all does, features of one size that have
    nothing to do with each other.

    Args:
        cascade: over the same feeds, not past the use.

    Raises:
        DataError: no row is finite.
    """
    assert use.other is not None
    total: Moments | None = None
    given, width = 0, 0
    for feed, array in zip(feeds, cascade.before(use.node, use.other), strict=True):
        rows = real_rows(program, feed, np.moveaxis(array, 1, -1) if use.kind == "convolution" else array)
        given, width = given + array.size, rows.shape[-1]
        rows = rows.astype(np.float32, copy=False)
        part = Moments(
            (rows.T @ rows).astype(np.float64), np.abs(rows).sum(axis=0, dtype=np.float64), len(rows)
        )
        total = part if total is None else total + part
    if width and not given:  # an expert that no token was given to: all features count alike
        return Moments(np.eye(width), np.ones(width), 1)
    if total is None or total.rows == 0:
        raise DataError(
            f"the calibration data leaves '{use.other.name}' without one finite row: check the model's "
            "weights and the attention masks"
        )
    return total

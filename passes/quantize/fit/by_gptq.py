"""GPTQ through a model: each weight for the activations that the quantized ones before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ....ir.program import Program
from ...common.cascade import Cascade
from ...manager.contract import Context, Feed
from ..codes.rounding import Coded, Scheme, checked
from ..codes.stored import Stored
from .gptq import gptq
from .moments import Moments, calibration, moments


def by_gptq(
    program: Program,
    weights: Sequence[Stored],
    before: Sequence[tuple[Stored, Coded]],
    scheme: Callable[[Sequence[np.ndarray]], Scheme],
    context: Context,
    damping: float,
    act_order: bool,
) -> Iterator[Coded]:
    """Codes for each weight, in the order given.

    A weight that several activations enter (shared layers) gets the sum of their Hessians, taken in float
    before anything is quantized.

    Args:
        weights: of products, by first use.
        before: weights that have codes already; they are in place from the start.
        scheme: how weights are stored, float32 (out, in) each.

    Raises:
        DataError: the calibration data won't do. WeightError: a weight has NaN or infinity.
    """
    feeds = calibration(program, context)
    shared = _shared(program, weights, feeds, context.threads)
    cascade = Cascade(program, feeds, context.threads)
    for stored, codes in before:
        cascade.change(stored.value, stored.restored(codes.floats()))
    x: ir.Value | None = None
    entering: Moments | None = None
    for number, stored in enumerate(weights):
        context.progress("fitting weights", number, len(weights))
        use = stored.products[0]
        found = shared.pop(stored.value, None)
        if found is None:
            if entering is None or x is not use.other:  # q, k and v share theirs
                x, entering = use.other, moments(program, cascade, use, feeds)
            found = entering
        weight = checked(stored.matrix(), stored.name)
        codes = gptq(weight, found.gram / found.rows, scheme([weight]), damping, act_order)
        cascade.change(stored.value, stored.restored(codes.floats()))
        yield codes


def _shared(
    program: Program, weights: Sequence[Stored], feeds: Sequence[Feed], threads: int
) -> dict[ir.Value, Moments]:
    several = [w for w in weights if len({use.other for use in w.products}) > 1]
    cascade = Cascade(program, feeds if several else (), threads)
    uses = [(use, stored.value) for stored in several for use in stored.products]
    sums: dict[ir.Value, Moments] = {}
    for use, value in sorted(uses, key=lambda pair: cascade.place(pair[0].node)):
        found = moments(program, cascade, use, feeds)
        sums[value] = sums[value] + found if value in sums else found
    return sums

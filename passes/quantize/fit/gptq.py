"""GPTQ: weights rounded one input at a time, each error made up for by the inputs still to come.

Frantar, Ashkboos, Hoefler and Alistarh, 2022, arXiv:2210.17323, algorithm 1. Rounding input i moves the
product by e x_i; the weights of later inputs are moved so that sum_x |W x - Q x|^2 grows least, which the
Cholesky factor U of the inverse Hessian tells: w[j] -= e U[i, j] / U[i, i] for all j > i. The Hessian of
that sum is 2 X X^T (its factor 2 cancels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir
from scipy.linalg import cholesky, lapack

from ....ir.program import Program
from ...common.cascade import Cascade
from ...manager.contract import Context, Feed
from ..codes.affine import Affine, integers
from ..codes.rounding import Coded, Scheme, checked, grid
from ..codes.stored import StoredWeight
from .clip import clip
from .moments import Moments, calibration, moments


def by_gptq(
    program: Program,
    weights: Sequence[StoredWeight],
    before: Sequence[tuple[StoredWeight, Coded]],
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
    program: Program, weights: Sequence[StoredWeight], feeds: Sequence[Feed], threads: int
) -> dict[ir.Value, Moments]:
    several = [w for w in weights if len({use.other for use in w.products}) > 1]
    cascade = Cascade(program, feeds if several else (), threads)
    uses = [(use, stored.value) for stored in several for use in stored.products]
    sums: dict[ir.Value, Moments] = {}
    for use, value in sorted(uses, key=lambda pair: cascade.place(pair[0].node)):
        found = moments(program, cascade, use, feeds)
        sums[value] = sums[value] + found if value in sums else found
    return sums


_BLOCK = 128  # inputs at least whose errors are applied to the rest in one product


def gptq(
    weight: np.ndarray,
    gram: np.ndarray,
    scheme: Scheme,
    damping: float = 0.01,
    act_order: bool = False,
) -> Coded:
    """A weight on the integers that keep its products best.

    Args:
        weight: float32 (out, in).
        gram: X X^T over the calibration activations, (in, in).
        damping: added to the diagonal, times its mean (section 3.3, step 3).
        act_order: take inputs in the order of their second moment, largest first. Groups stay runs of
            neighbours, their scales taken from the original weight ("static groups") and clipped where that
            loses less; without it a group's scale is taken when its turn comes, from weights that make up
            for earlier errors already.
    """
    factor, order, weight = prepared(weight, gram, damping, act_order)
    rows, columns = weight.shape
    group = scheme.group
    static = _static(weight[:, np.argsort(order)], gram, scheme) if act_order else None
    groups = -(-columns // group)
    scales = np.ones((rows, groups), np.float32)
    zeros = np.zeros((rows, groups), np.float32 if scheme.fractions else np.int32)
    codes = np.empty((rows, columns), np.uint8)
    low, high = integers(scheme.bits)
    width = group * -(-_BLOCK // group)  # whole groups, so that a group's weights are all up to date
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        block, errors = weight[:, start:stop], np.empty((rows, stop - start), weight.dtype)
        for i in range(stop - start):
            number = int(order[start + i]) // group
            if static is not None:
                scales[:, number], zeros[:, number] = static.scale[:, number], static.zero[:, number]
            elif (start + i) % group == 0:
                found = grid(block[:, i : i + group], scheme)
                scales[:, number], zeros[:, number] = found.scale[:, 0], found.zero[:, 0]
            scale, zero = scales[:, number], zeros[:, number]
            code = np.clip(np.rint(block[:, i] / scale + zero), low, high)
            codes[:, start + i] = code
            errors[:, i] = (block[:, i] - scale * (code - zero)) / factor[start + i, start + i]
            block[:, i + 1 :] -= np.outer(errors[:, i], factor[start + i, start + i + 1 : stop])
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    restored = np.empty_like(codes)
    restored[:, order] = codes
    return Coded(restored, scales, zeros, scheme.bits, group)


def _static(weight: np.ndarray, gram: np.ndarray, scheme: Scheme) -> Affine:
    return grid(weight, scheme, clip(weight, gram, scheme))


def prepared(
    weight: np.ndarray, gram: np.ndarray, damping: float, act_order: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(upper Cholesky factor of the damped gram's inverse, order of the inputs, weight in that order).

    An input that is always 0 has no say: its weight is set to 0 (as the paper's own code does).
    """
    gram = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", gram)  # a view
    dead = diagonal == 0
    diagonal[dead] = 1
    weight = weight.astype(np.float32)
    weight[:, dead] = 0
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(len(diagonal))
    diagonal += damping * diagonal.mean()
    gram, weight = gram[np.ix_(order, order)], weight[:, order]
    inverse, info = lapack.dpotri(cholesky(gram, lower=True), lower=1)
    if info:
        raise ValueError(f"the damped Hessian has no inverse (LAPACK says {info}): raise damping")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return cholesky(inverse, lower=False).astype(np.float32), order, weight

"""What packing did to each use of a weight: its range, what it clipped, its noise, its kernel and its time.

The signal is y = x W in float64, or rows of W, for the x that enters in the packed graph; what was found is
what that graph gives. The decoded weight is read off it: the nodes between x and y are run on rows of the
identity, or on ids. What they give for zeros is the bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.onnx.execute import execute_onnx
from ....ir.program import Program
from ...common.piece import piece, read
from ...manager.contract import Feed
from .layer import ROWS, Layer, Timed, decibels, outside
from .packed_seen import Seen, watch
from .packed_uses import PackedUse

_IDS = 4096  # rows of a table that are looked at
_BLOCK = 4096  # output features that are computed at a time


def packed_layers(
    uses: Sequence[PackedUse], after: Program, feeds: Sequence[Feed], timed: tuple[Timed, Timed], threads: int
) -> list[Layer]:
    """A layer for each use, if what it gives is floats of the sizes of its weight.

    Args:
        timed: the kernels of the float program and of `after`.
    """
    found = []
    for use, seen in zip(uses, watch(after, uses, feeds, threads), strict=True):
        compared = _compared(use, seen, after, threads)
        if compared is None:
            continue
        floats, decoded, signal, given = compared
        root, alone = str(use.use.node.outputs[0].name), len(use.stored.uses) == 1
        other = set() if use.use.other is None else {str(use.use.other.name)}
        _, before_us = _kernels(timed[0], use.plain, other, {root}, alone)
        x = set() if use.x is None else {str(use.x.name)}
        between = {str(v.name) for node in use.nodes for v in node.outputs} - use.reading
        inside = x | between - {str(use.y.name)}
        # What takes a weight whole keeps its name.
        kernel, after_us = _kernels(timed[1], use.reading, inside, between | {root}, alone)
        found.append(
            Layer(
                root, use.stored.name, kernel or use.use.node.op_type,
                float(decoded.min(initial=0)), float(decoded.max(initial=0)), outside(floats, decoded),
                np.inf, decibels(floats, decoded), decibels(signal, given), before_us, after_us,
            )
        )  # fmt: skip
    return found


_Compared = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _compared(use: PackedUse, seen: Seen, after: Program, threads: int) -> _Compared | None:
    """(float weights, decoded ones, both (out or rows, any); signal, what was found, both (rows, out))."""
    matrix = use.matrix()
    out, columns = matrix.shape
    if use.whole:
        decoded = _run(use, after, None, threads)
        if decoded.dtype.kind != "f" or decoded.size != matrix.size:
            return None
        decoded = decoded.reshape(decoded.shape[:2])
        decoded = decoded if use.stored.rows else decoded.T
        if seen.x.shape[-1] != columns:  # a table, or groups that see blocks of features alone
            return matrix, decoded, matrix, decoded
        return matrix, decoded, _product(seen.x, matrix), _product(seen.x, decoded)
    if seen.like is None:
        return None
    if use.use.kind == "lookup":
        rows = _spread(out, _IDS)
        ids = rows.astype(seen.like.dtype).reshape((1,) * (seen.like.ndim - 1) + (-1,))
        decoded = _run(use, after, ids, threads).reshape(len(rows), -1)
        if decoded.shape[1] != columns:
            return None
        return matrix[rows], decoded, matrix[seen.x], seen.y
    places = _spread(columns, ROWS)
    ones = np.zeros((*(1,) * (seen.like.ndim - 2), len(places) + 1, columns), seen.like.dtype)
    ones[..., np.arange(len(places)), places] = 1
    if seen.x.shape[-1] != columns or ones.dtype.kind != "f":
        return None
    given = _run(use, after, ones, threads).reshape(len(places) + 1, -1)
    if given.shape[1] != out:
        return None
    decoded, bias = (given[:-1] - given[-1]).T, given[-1].astype(np.float64)
    return matrix[:, places], decoded, _product(seen.x, matrix), seen.y - bias


def _run(use: PackedUse, after: Program, x: np.ndarray | None, threads: int) -> np.ndarray:
    """What a use gives for another x."""
    entering = {v for node in use.nodes for v in read(node) if v.is_initializer()}
    weights = {str(v.name): v.const_value for v in entering if v.const_value is not None}
    feed = {} if use.x is None or x is None else {str(use.x.name): x}
    model = piece(use.nodes, feed, [str(use.y.name)], weights, after.graph)
    return execute_onnx(model, [str(use.y.name)], [feed], threads)[0][str(use.y.name)]


def _spread(count: int, most: int) -> np.ndarray:
    """Up to so many indices, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def _product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x W^T in float64, some output features at a time."""
    x = x.astype(np.float64)
    blocks = [matrix[i : i + _BLOCK].T.astype(np.float64) for i in range(0, len(matrix), _BLOCK)]
    return np.concatenate([x @ block for block in blocks], axis=1)


def _kernels(
    timed: Timed, weight: frozenset[str], entering: set[str], leaving: set[str], alone: bool
) -> tuple[str | None, float | None]:
    """The kernel of a use that takes longest of those that read its weight, and the microseconds of all of
    the use's.

    Args:
        weight: names of what is made of it alone. entering, leaving: of what its kernels read, and make.
        alone: the weight has no other use.
    """
    reading = [(k, s) for k, s in timed if weight.intersection(k.inputs)]
    if not alone:
        reading = [
            (k, s) for k, s in reading if entering.intersection(k.inputs) or leaving.intersection(k.outputs)
        ]
    if not reading:
        return None, None
    longest, _ = max(reading, key=lambda pair: pair[1])
    own = [s for k, s in timed if (k, s) in reading or leaving.intersection(k.outputs)]
    return longest.op_type, 1e6 * sum(own)

"""What packing did to each use of a weight: its range, what it clipped, its noise, its kernel and its time.

The signal is y = x W in float64, or rows of W, for the x that enters in the packed graph; what was found is
what that graph gives. The decoded weight is read off it: the nodes between x and y are run on rows of the
identity, or on ids. What they give for zeros is the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.execute import observe
from ....ir.onnx.execute import execute_onnx
from ....ir.program import Program
from ...common.piece import piece, read
from ...manager.contract import Feed
from .layer import ROWS, Layer, Timed, decibels, outside
from .packed_uses import PackedUse


@dataclass(frozen=True)
class Seen:
    """x: (rows, in), or ids (rows,). y: (rows, out); (rows, 0) of a weight that is decoded whole. like: an x
    as it entered, for its axes and type."""

    x: np.ndarray
    y: np.ndarray
    like: np.ndarray | None


def watch(after: Program, uses: Sequence[PackedUse], feeds: Sequence[Feed], threads: int) -> list[Seen]:
    """What enters each use and what it gives, a row a token or an id, up to ROWS finite rows."""
    names = [[str(v.name) for v in (use.x, None if use.whole else use.y) if v is not None] for use in uses]
    taken: list[list[Seen]] = [[] for _ in uses]
    wanted = list(dict.fromkeys(name for each in names for name in each))
    for values in observe(after, wanted, feeds, threads) if wanted else ():
        for use, each, rows in zip(uses, names, taken, strict=True):
            if each and (left := ROWS - sum(len(one.x) for one in rows)) > 0:
                rows.append(_rows(use, *(values[name] for name in each), count=left))
    nothing = Seen(np.zeros((0, 0)), np.zeros((0, 0)), None)
    return [_joined(rows) if rows else nothing for rows in taken]


def _rows(use: PackedUse, like: np.ndarray, given: np.ndarray | None = None, *, count: int) -> Seen:
    x = np.moveaxis(like, 1, -1) if use.use.kind == "convolution" else like
    x = x.reshape(-1) if use.use.kind == "lookup" else x.reshape(-1, x.shape[-1])
    y = np.zeros((len(x), 0)) if given is None else given.reshape(-1, given.shape[-1])
    x, y = x[:count], y[:count]
    finite = np.isfinite(x if x.ndim > 1 else x[:, None]).all(axis=1) & np.isfinite(y).all(axis=1)
    return Seen(x[finite], y[finite], like)


def _joined(rows: Sequence[Seen]) -> Seen:
    x, y = (np.concatenate(parts) for parts in zip(*((one.x, one.y) for one in rows), strict=True))
    return Seen(x, y, rows[0].like)


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

"""Rules for permutations, reshapes and indexing that only moves."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op

from .rewriter import Rewriter, Rule, Shape, array, operator, shape


def axes(call: Any) -> Shape:
    """Of a permute_dims, counted from the front."""
    rank = len(shape(call.args[0]))
    given = call.attrs.axes
    return tuple(int(axis) % rank for axis in given) if given is not None else tuple(reversed(range(rank)))


def _permute(this: Rewriter, call: Any) -> Any:
    order, held = axes(call), this.held(call.args[0])
    if order == tuple(range(len(order))):
        return call.args[0]
    if held is not None:
        return relax.const(np.ascontiguousarray(held.transpose(order)), str(call.ty.dtype))
    inner = this.source(call.args[0], "permute_dims")
    if inner is None:
        return _merged(this, call, order)
    whole = tuple(axes(inner)[axis] for axis in order)
    return inner.args[0] if whole == tuple(range(len(whole))) else op.permute_dims(inner.args[0], whole)


def _merged(this: Rewriter, call: Any, order: Shape) -> Any:
    """(batch, heads, size, length) merged to channels, and those last: permuted first, so that what made the
    heads apart is met."""
    inner = this.source(call.args[0], "reshape")
    if inner is None or order != (0, 2, 1) or len(shape(inner.args[0])) != 4:
        return None
    batch, heads, size, length = shape(inner.args[0])
    if shape(inner) != (batch, heads * size, length):
        return None
    first = this.emit(op.permute_dims(inner.args[0], [0, 3, 1, 2]))
    return op.reshape(first, (batch, length, heads * size))


def _reshape(this: Rewriter, call: Any) -> Any:
    wanted = shape(call)
    held = this.held(call.args[0])
    if wanted == shape(call.args[0]):
        return call.args[0]
    if held is not None:
        return relax.const(held.reshape(wanted), str(call.ty.dtype))
    inner = this.source(call.args[0], "reshape", "permute_dims", "expand_dims", "squeeze")
    if inner is None:
        return None
    if operator(inner) != "permute_dims":
        return op.reshape(inner.args[0], wanted) if wanted != shape(inner.args[0]) else inner.args[0]
    found = _split_again(this, inner, wanted)
    return found if found is not None else _split_channels(this, inner, wanted)


def _split_again(this: Rewriter, permuted: Any, wanted: Shape) -> Any:
    """reshape(permute(reshape(x))) where the first merges leading axes that the last takes apart again."""
    merged = this.source(permuted.args[0], "reshape")
    order = axes(permuted)
    if merged is None or order[0] != 0:
        return None
    whole, tail = shape(merged.args[0]), shape(merged)[1:]
    leading = len(whole) - len(tail)
    turned = tuple(tail[axis - 1] for axis in order[1:])
    if leading < 1 or whole[leading:] != tail or wanted != whole[:leading] + turned:
        return None
    return op.permute_dims(merged.args[0], [*range(leading), *(axis - 1 + leading for axis in order[1:])])


def _split_channels(this: Rewriter, permuted: Any, wanted: Shape) -> Any:
    """Channels made the second axis and split into heads: split first."""
    if axes(permuted) != (0, 2, 1) or len(wanted) != 4:
        return None
    batch, length, channels = shape(permuted.args[0])
    if (wanted[0], wanted[3]) != (batch, length) or wanted[1] * wanted[2] != channels:
        return None
    split = this.emit(op.reshape(permuted.args[0], (batch, length, *wanted[1:3])))
    return op.permute_dims(split, [0, 2, 3, 1])


def _indexed(this: Rewriter, call: Any) -> Any:
    """Indices that take every element in order."""
    given = shape(call.args[0])
    count = np.arange(prod(given)).reshape(given)
    if operator(call) == "gather_nd":
        indices = array(call.args[1])
        if indices is None or int(call.attrs.batch_dims):
            return None
        taken = count[tuple(np.moveaxis(indices, -1, 0))]
    else:
        arrays = [array(index) for index in call.args[1]]
        if any(held is None for held in arrays):
            return None
        taken = count[tuple(arrays)]
    in_order = taken.size == count.size and np.array_equal(taken.reshape(-1), count.reshape(-1))
    return op.reshape(call.args[0], taken.shape) if in_order else None


def _same(this: Rewriter, call: Any) -> Any:
    """What changes neither shape nor type."""
    unchanged = shape(call) == shape(call.args[0]) and str(call.ty.dtype) == str(call.args[0].ty.dtype)
    return call.args[0] if unchanged else None


RULES: dict[str, Rule] = {
    "astype": _same,
    "broadcast_to": _same,
    "gather_nd": _indexed,
    "index_tensor": _indexed,
    "permute_dims": _permute,
    "reshape": _reshape,
}

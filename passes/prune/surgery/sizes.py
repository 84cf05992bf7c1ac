"""Operators that state sizes: what they state once axes are shorter."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from ....ir.errors import PassError
from ....ir.fx import operators as fx_ops
from ....ir.fx.mode import argument, set_argument

aten = torch.ops.aten
# What goes along each axis of a node's result, by position; None where it differs from call to call.
Cuts = dict[Node, dict[int, np.ndarray | None]]

_LISTS = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "broadcast_to"), ("size", "shape")),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full"), ("size",)),
}


def restate(node: Node, cuts: Cuts) -> None:
    """Restates the sizes that a node gives for the axes that are cut, in place.

    Raises:
        PassError: sizes are computed, and more than one of them is not known elsewhere.
    """
    name = fx_ops.packet(node).removeprefix("aten.") if node.op == "call_function" else ""
    if name in _LISTS:
        _list(node, next(key for key in _LISTS[name] if _has(node, key)), cuts[node])
    elif name == "unflatten":
        first = len(_shape(node)) - len(argument(node, "sizes"))
        _list(
            node, "sizes", {axis - first: gone for axis, gone in cuts[node].items() if axis >= first}, first
        )
    elif name in ("layer_norm", "native_layer_norm", "rms_norm"):
        first = len(_shape(node)) - len(argument(node, "normalized_shape"))
        kept = {axis - first: gone for axis, gone in cuts[node].items() if axis >= first}
        _list(node, "normalized_shape", kept, first)
    elif name == "repeat":
        _repeat(node, cuts)
    elif name == "slice":
        _slice(node, cuts)
    elif name == "scaled_dot_product_attention":
        _scale(node, cuts)
    elif isinstance(source := node.args[0] if node.args else None, Node) and fx_ops.many(source):
        _split(source, cuts)


def _has(node: Node, name: str) -> bool:
    target: Any = node.target
    return any(each.name == name for each in target._schema.arguments)


def _shape(node: Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _list(node: Node, name: str, axes: dict[int, np.ndarray | None], first: int = 0) -> None:
    """Cuts a list of sizes. One that is computed from sizes becomes -1: whatever is left."""
    old, sizes = _shape(node)[first:], list(argument(node, name))
    extra = len(old) - len(sizes)
    for axis, gone in axes.items():
        if axis < extra or sizes[axis - extra] == -1:
            continue
        if gone is not None and isinstance(sizes[axis - extra], int):
            sizes[axis - extra] -= len(gone)
        else:
            if -1 in sizes:
                free = sizes.index(-1)
                sizes[free] = _stated(node, first + extra + free, cut=extra + free in axes)
            sizes[axis - extra] = -1
    set_argument(node, name, sizes)


def _stated(node: Node, axis: int, cut: bool) -> int | Node:
    """The size of an axis of a result, as a number or read off the operand, where it isn't cut as well."""
    source, size = node.args[0], _shape(node)[axis]
    if not cut and isinstance(size, int):
        return size
    if not cut and isinstance(source, Node):
        for place, same in enumerate(_shape(source)):
            if isinstance(same, torch.SymInt) and same.node.expr == size.node.expr:
                with node.graph.inserting_before(node):
                    read = node.graph.call_function(aten.sym_size.int, (source, place))
                read.meta["val"] = same
                return read
    raise PassError(f"{node.name} computes sizes of axes that are cut: it cannot be followed")


def _repeat(node: Node, cuts: Cuts) -> None:
    """What repeats one row is repeated less often; what repeats more rows repeats fewer of them."""
    source: Any = node.args[0]
    repeats = list(argument(node, "repeats"))
    extra = len(repeats) - len(_shape(source))
    for axis, gone in cuts[node].items():
        if gone is not None and (axis < extra or _shape(source)[axis - extra] == 1):
            repeats[axis] -= len(gone)
    set_argument(node, "repeats", repeats)


def _slice(node: Node, cuts: Cuts) -> None:
    """The start and the end move by what goes before them."""
    source: Any = node.args[0]
    _, _, attrs = fx_ops.canonical(node)
    gone = cuts.get(source, {}).get(attrs["axis"])
    if gone is None:
        return
    start, end = (attrs[key] - int((gone < attrs[key]).sum()) for key in ("start", "end"))
    node.args, node.kwargs = (source, attrs["axis"], start, end), {}


def _split(node: Node, cuts: Cuts) -> None:
    """Pieces get sizes of their own; a chunk into equal ones may not stay equal."""
    _, _, attrs = fx_ops.canonical(node)
    if "sizes" not in attrs:  # the largest and where it lies
        return
    source: Any = node.args[0]
    gone = cuts.get(source, {}).get(attrs["axis"])
    if gone is None or len(gone) == 0:
        return
    edges = np.cumsum((0, *attrs["sizes"]))
    sizes = [int(b - a - ((gone >= a) & (gone < b)).sum()) for a, b in pairwise(edges)]
    node.target = aten.split_with_sizes.default
    node.args, node.kwargs = (source, sizes, attrs["axis"]), {}


def _scale(node: Node, cuts: Cuts) -> None:
    """A scale that is not stated follows from the head size: it stays what it was."""
    query: Any = node.args[0]
    last = len(_shape(query)) - 1
    if argument(node, "scale") is None and last in cuts.get(query, {}):
        set_argument(node, "scale", float(_shape(query)[last]) ** -0.5)

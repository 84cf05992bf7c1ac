"""A block that does nothing any more: its output projection gives its bias."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ....ir.errors import PassError
from ....ir.fx.graph import call
from ....ir.fx.mode import argument
from .units import Output

aten = torch.ops.aten
_SAME = {aten.dropout.default, aten.clone.default, aten.contiguous.default, aten.alias.default}


def vanish(gm: GraphModule, output: Output) -> None:
    """Puts the bias, or nothing, in place of a projection's result; what only it read is left unused.

    Raises:
        PassError: the result's sizes cannot be had from the program's inputs.
    """
    nodes = {node.name: node for node in gm.graph.nodes}
    root = nodes[output.root]
    bias = nodes[output.bias] if output.bias is not None else None
    rank, last = root.meta["val"].dim(), nodes[output.operand].meta["val"].dim() - 1
    after = 0 if output.axis == last else rank - 1 - output.axis
    if bias is not None and after:
        bias = call(gm.graph, aten.view.default, bias, [-1] + [1] * after, before=root)
    sums = _sums(root)
    if sums is None:
        root.replace_all_uses_with(_full(gm, root, bias))
        return
    for total, branch in sums:
        if bias is None:
            other: Any = next(a for a in total.args if a is not branch)
            total.replace_all_uses_with(other)
        else:
            total.replace_input_with(branch, bias)


def _sums(value: Node) -> list[tuple[Node, Node]] | None:
    """(sum, which term) for all that reads a value, past dropouts; None where something else reads it.

    The other term has the value's full shape, so that the sum keeps its own.
    """
    found: list[tuple[Node, Node]] = []
    for user in value.users:
        if user.target in _SAME:
            more = _sums(user)
            if more is None:
                return None
            found += more
            continue
        if user.target is not aten.add.Tensor or argument(user, "alpha") != 1:
            return None
        others = [a for a in user.args if isinstance(a, Node) and a is not value]
        if len(others) != 1 or others[0].meta["val"].shape != value.meta["val"].shape:
            return None
        found.append((user, value))
    return found


def _full(gm: GraphModule, root: Node, bias: Node | None) -> Node:
    """The bias, or zeros, at every place of a result."""
    value = root.meta["val"]
    sizes = [size if isinstance(size, int) else _size(gm, root, size) for size in value.shape]
    if bias is not None:
        return call(gm.graph, aten.expand.default, bias, sizes, before=root)
    return call(gm.graph, aten.full.default, sizes, 0.0, before=root, dtype=value.dtype)


def _size(gm: GraphModule, root: Node, size: torch.SymInt) -> Node:
    """A node that gives a symbolic size: an input's, or a product of inputs'."""
    factors = [_factor(gm, root, factor) for factor in size.node.expr.as_ordered_factors()]
    product = factors[0]
    with gm.graph.inserting_before(root):
        for factor in factors[1:]:
            values = [f.meta["val"] if isinstance(f, Node) else f for f in (product, factor)]
            product = gm.graph.call_function(operator.mul, (product, factor))
            product.meta["val"] = values[0] * values[1]
    return product


def _factor(gm: GraphModule, root: Node, wanted: Any) -> Any:
    if wanted.is_Integer:
        return int(wanted)
    for node in gm.graph.find_nodes(op="placeholder"):
        for axis, size in enumerate(getattr(node.meta.get("val"), "shape", ())):
            if isinstance(size, torch.SymInt) and size.node.expr == wanted:
                return call(gm.graph, aten.sym_size.int, node, axis, before=root)
    raise PassError(f"the size {wanted} of {root.name} is no input's: the block that gives it cannot vanish")

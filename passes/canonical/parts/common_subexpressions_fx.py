"""Common subexpressions of an FX graph; imported only when there is one, for it needs torch."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ...manager.contract import Context


def merge_fx(module: GraphModule, context: Context) -> tuple[int, str]:
    """Merge equal ATen calls and attribute reads; how many, or why none was looked for."""
    writer = in_place(module)
    if writer is not None:
        return 0, f"not looked for: {writer.name} ({writer.target}) writes in place"
    first: dict[Hashable, Node] = {}
    merged = 0
    for node in module.graph.nodes:
        if not _repeatable(node):
            continue
        key = (node.op, node.target, _key(node.args), _key(dict(node.kwargs)))
        twin = first.setdefault(key, node)
        if twin is not node and context.allow(f"merge node {node.name} into {twin.name}"):
            node.replace_all_uses_with(twin)
            module.graph.erase_node(node)
            merged += 1
    module.recompile()
    return merged, ""


def in_place(module: GraphModule) -> Node | None:
    """The first node that writes into an operand: with one, values may change between two equal reads."""
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return node
    return None


def _repeatable(node: Node) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function" or node.is_impure():
        return False
    return not (
        isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
        and not (node.target is torch.ops.aten.dropout.default and node.args[2] is False)
    )


def _key(argument: Any) -> Hashable:
    """Equal for equal arguments of one type; nodes by identity."""
    if isinstance(argument, Node):
        return id(argument)
    if isinstance(argument, tuple | list):
        return (type(argument).__name__, *map(_key, argument))
    if isinstance(argument, dict):
        return tuple((name, _key(value)) for name, value in sorted(argument.items()))
    if isinstance(argument, slice):
        return ("slice", _key(argument.start), _key(argument.stop), _key(argument.step))
    return (type(argument).__name__, repr(argument))

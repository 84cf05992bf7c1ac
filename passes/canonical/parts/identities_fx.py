"""Identities of an FX graph; imported only when there is one, for it needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from ...manager.contract import Context
from .common_subexpressions_fx import in_place

aten = torch.ops.aten
_ALWAYS = {aten.alias.default, aten.lift_fresh.default, aten.lift_fresh_copy.default}
_DROPOUT = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}
_LAYOUT = {
    aten.clone.default, aten.contiguous.default, aten.expand.default, aten.view.default, aten.reshape.default,
    aten._unsafe_view.default, aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default,
    aten.type_as.default,
}  # fmt: skip


def remove_fx(module: GraphModule, context: Context) -> int:
    """Remove ATen identities and metadata assertions; how many.

    With an operator that writes in place around, a copy is not the same as what it copies: then only
    dropout and assertions go.
    """
    copies = in_place(module) is None
    removed = 0
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        assertion = node.target is aten._assert_tensor_metadata.default
        if not (assertion or _returns_operand(node, copies)):
            continue
        if not context.allow(f"remove {node.target} node {node.name}"):
            continue
        if not assertion:
            node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)
        removed += 1
    module.recompile()
    return removed


def _returns_operand(node: Node, copies: bool) -> bool:
    if node.target in _DROPOUT:
        return node.args[2] is False
    if not copies:
        return False
    if node.target in _ALWAYS:
        return True
    layout = _layout(node)
    return node.target in _LAYOUT and layout is not None and layout == _layout(node.args[0])


def _layout(node: Any) -> tuple[str, ...] | None:
    """Type, shape and strides: equal for a result that lies in memory just as its operand does."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, torch.Tensor):
        return None
    return (str(value.dtype), str(value.device), str(tuple(value.shape)), str(value.stride()))

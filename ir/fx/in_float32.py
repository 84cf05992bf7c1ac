"""A graph in bfloat16, float16 or float64 computed in float32, for which every runtime has every operator."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from .graph import attribute, clone, propagate, replace_tensor

_LARGEST = torch.finfo(torch.float32).max
_HALVES = (torch.bfloat16, torch.float16)
UNKNOWN = (torch.bfloat16,)
"""Types that NumPy does not have: inputs and outputs of these become float32."""


def own_precision(gm: GraphModule) -> torch.dtype | None:
    """The type to replace by float32: that of weights in 16 bits, or of most weights where that is float64;
    of the inputs where there are no weights."""
    for op in ("get_attr", "placeholder"):
        counts: dict[torch.dtype, int] = {}
        for value in (node.meta.get("val") for node in gm.graph.nodes if node.op == op):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                count = value.numel() if op == "get_attr" else 1
                counts[value.dtype] = counts.get(value.dtype, 0) + count
        if counts:
            most = max(counts, key=lambda dtype: counts[dtype])
            return next((t for t in _HALVES if t in counts), most if most == torch.float64 else None)
    return None


def in_float32(gm: GraphModule, own: torch.dtype) -> GraphModule:
    """A graph that computes in float32 whatever `gm` computes in `own`.

    Inputs and outputs keep their types, but for those in UNKNOWN. Numbers beyond float32's become its
    largest, as masks are made of the smallest number that a type has.
    """
    twin = clone(gm)
    graph = twin.graph
    for node in list(graph.nodes):
        if node.op == "get_attr" and _dtype(node) == own:
            tensor = attribute(twin, str(node.target))
            replace_tensor(twin, node, _kind(tensor, _narrowed(tensor.detach())))
        elif node.op == "placeholder" and _dtype(node) == own:
            if own in UNKNOWN:
                value = node.meta["val"]
                with value.fake_mode:
                    node.meta["val"] = value.to(torch.float32)
                continue
            with graph.inserting_after(node):
                cast = graph.call_function(torch.ops.aten.to.dtype, (node, torch.float32))
            node.replace_all_uses_with(cast, lambda user, cast=cast: user is not cast and user.op != "output")
        elif node.op == "call_function":
            node.args, node.kwargs = torch.fx.node.map_aggregate(
                (node.args, node.kwargs), lambda a: _argument(a, own)
            )
        elif node.op == "output" and own not in UNKNOWN:
            for value in dict.fromkeys(node.all_input_nodes):
                if value.op != "placeholder" and _dtype(value) == own:
                    with graph.inserting_before(node):
                        node.replace_input_with(
                            value, graph.call_function(torch.ops.aten.to.dtype, (value, own))
                        )
    propagate(twin)
    twin.recompile()
    return twin


def _dtype(node: Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)


def _narrowed(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float64:
        return tensor.to(torch.float32)
    return torch.where(tensor.isfinite(), tensor.clamp(-_LARGEST, _LARGEST), tensor).to(torch.float32)


def _kind(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def _argument(value: Any, own: torch.dtype) -> Any:
    if value is own:
        return torch.float32
    if isinstance(value, float) and _LARGEST < abs(value) < float("inf"):
        return _LARGEST if value > 0 else -_LARGEST
    return value

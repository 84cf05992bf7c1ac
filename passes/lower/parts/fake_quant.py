"""Fake quantization as what it stands for: integers behind QuantizeLinear and DequantizeLinear.

torch's exporter knows three ranges of integers and no learned steps. Here every operator of the family is
read as one mapping; its step and offset, however they come about (a buffer, a parameter, the weight's own
largest magnitude), are what the graph computes from its constants, and become constants. A weight becomes
its integers; an activation is quantized, clipped where its range is not that of a byte, and dequantized.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ....ir.errors import ContractError
from ....ir.fx.graph import add_tensor, attribute, prune
from ....ir.fx.operators import bind
from .rounding import CLIP, DEQUANTIZE, QUANTIZE

aten = torch.ops.aten
_TENSORS = {
    aten.fake_quantize_per_tensor_affine.default,
    aten.fake_quantize_per_tensor_affine.tensor_qparams,
    aten._fake_quantize_learnable_per_tensor_affine.default,
}
_FAMILY = {
    *_TENSORS,
    aten.fake_quantize_per_channel_affine.default,
    aten._fake_quantize_learnable_per_channel_affine.default,
}
# Products that exporters write as one Gemm, and what they call their activation, weight and bias.
_PRODUCTS: dict[Any, tuple[str, str, str]] = {
    aten.linear.default: ("input", "weight", "bias"),
    aten.addmm.default: ("mat1", "mat2", "self"),
}


def lower_fake_quant(gm: GraphModule) -> int:
    """Replaces every fake quantization, in place; returns how many there were.

    Raises:
        ContractError: a step depends on the inputs, or integers do not fit eight bits.
    """
    constants = Constants(gm)
    count = 0
    for node in _family(gm):
        _settle(node, constants)
        if node.args[0] in constants:
            _split_products(node)
    for node in _family(gm):
        mapping = _mapping(node, constants)
        lower = _lower_weight if mapping.x in constants else _lower_activation
        node.replace_all_uses_with(lower(gm, node, mapping, constants))
        count += 1
    if count:
        prune(gm)
    return count


def _family(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if node.target in _FAMILY and node.users]


@dataclass(frozen=True)
class Mapping:
    """x is rounded to scale * (q - zero), low <= q <= high. axis: of channels, None per tensor."""

    x: Node
    scale: Tensor
    zero: Tensor
    axis: int | None
    low: int
    high: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.low >= 0 else torch.int8


class Constants:
    """The nodes that come from constants alone, and what they give."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self._nodes: set[Node] = set()
        for node in gm.graph.nodes:
            if node.op == "get_attr":
                if isinstance(attribute(gm, str(node.target)), Tensor):
                    self._nodes.add(node)
            elif node.op == "call_function" and all(n in self._nodes for n in node.all_input_nodes):
                self._nodes.add(node)

    def __contains__(self, node: Any) -> bool:
        return node in self._nodes

    def value(self, node: Any) -> Any:
        """What a node gives; a number or None gives itself. Nothing is kept."""
        if not isinstance(node, Node):
            return node
        if node.op == "get_attr":
            return attribute(self.gm, str(node.target)).detach()
        args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), self.value)
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        with torch.no_grad():
            return target(*args, **kwargs)


def _settle(node: Node, constants: Constants) -> None:
    """Let users of a choice between this and another tensor, all of whose draws are made, have the chosen."""
    for user in list(node.users):
        if user.target is aten.where.self and user.args[0] in constants:
            chosen = constants.value(user.args[0])
            _, first, second = cast(tuple[Node, Node, Node], user.args)
            if chosen.all():
                user.replace_all_uses_with(first)
            elif not chosen.any():
                user.replace_all_uses_with(second)


def _mapping(node: Node, constants: Constants) -> Mapping:
    given = bind(node)
    for name in ("scale", "zero_point"):
        if isinstance(given[name], Node) and given[name] not in constants:
            raise ContractError(
                f"the {name} of {node.name} depends on the inputs, and only a fixed one can be exported"
            )
    low, high = given["quant_min"], given["quant_max"]
    if not (0 <= low <= high <= 255 or -128 <= low <= high <= 127):
        raise ContractError(f"{node.name} rounds to {low}..{high}, which is no range of 8-bit integers")
    scale = torch.as_tensor(constants.value(given["scale"]), dtype=torch.float32)
    zero = torch.as_tensor(constants.value(given["zero_point"]))
    if zero.is_floating_point():  # a learned one is rounded and clipped as it is used
        zero = zero.round().clamp(low, high)
    axis = given.get("axis")
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    dtype = torch.uint8 if low >= 0 else torch.int8
    return Mapping(given["self"], scale, zero.to(dtype), axis, low, high)


def _split_products(weight: Node) -> None:
    """Writes the sum with a bias apart: ONNX Runtime has an integer MatMul, and no Gemm with a float bias.

    It would make a Gemm of a two-dimensional MatMul and the sum after it again, so rows get a third axis.
    """
    for user in list(weight.users):
        given = bind(user) if user.target in _PRODUCTS else {}
        x, matrix, bias = (given.get(name) for name in _PRODUCTS.get(user.target, ("", "", "")))
        if matrix is not weight or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
            continue
        call = user.graph.call_function
        wide = _widened(x)
        with user.graph.inserting_before(user):
            turned = user.target is aten.linear.default
            product = call(aten.matmul.default, (wide, call(aten.t.default, (matrix,)) if turned else matrix))
            whole = product if bias is None else call(aten.add.Tensor, (product, bias))
            if wide is not x:
                whole = call(aten.squeeze.dim, (whole, 0))
        user.replace_all_uses_with(whole)
        user.graph.erase_node(user)


def _widened(x: Any) -> Any:
    """A fake-quantized matrix with a third axis, put before the rounding; anything else as it is."""
    if x.target not in _TENSORS or len(getattr(x.meta.get("val"), "shape", ())) != 2:
        return x
    for twin in x.args[0].users:
        if twin.target is aten.unsqueeze.default:
            for fake in twin.users:
                if fake.target is x.target and fake.args[1:] == x.args[1:]:
                    return fake
    with x.graph.inserting_before(x):
        source = x.graph.call_function(aten.unsqueeze.default, (x.args[0], 0))
        return x.graph.call_function(x.target, (source, *x.args[1:]))


def _lower_weight(gm: GraphModule, node: Node, mapping: Mapping, constants: Constants) -> Node:
    """A DequantizeLinear of the very integers that the fake-quantized weight stands for."""
    fake = constants.value(node)
    shape = [1] * fake.dim()
    if mapping.axis is not None:
        shape[mapping.axis] = -1
    steps = torch.round(fake / mapping.scale.reshape(shape)) + mapping.zero.reshape(shape)
    source: Node = mapping.x
    name = str(source.target) if source.op == "get_attr" else node.name
    codes = add_tensor(gm, f"{name}_quantized", steps.to(mapping.dtype), node)
    return _call(gm, node, DEQUANTIZE, codes, *_parameters(gm, node, name, mapping), mapping.axis)


def _lower_activation(gm: GraphModule, node: Node, mapping: Mapping, constants: Constants) -> Node:
    """QuantizeLinear, Clip where a byte holds more, DequantizeLinear."""
    parameters = _parameters(gm, node, node.name, mapping)
    codes = _call(gm, node, QUANTIZE, mapping.x, *parameters, mapping.axis)
    whole = torch.iinfo(mapping.dtype)
    if (mapping.low, mapping.high) != (whole.min, whole.max):
        ends = [
            add_tensor(gm, f"{node.name}_{name}", torch.tensor(end, dtype=mapping.dtype), node)
            for name, end in (("low", mapping.low), ("high", mapping.high))
        ]
        codes = _call(gm, node, CLIP, codes, *ends)
    return _call(gm, node, DEQUANTIZE, codes, *parameters, mapping.axis)


def _parameters(gm: GraphModule, node: Node, name: str, mapping: Mapping) -> tuple[Node, Node]:
    scale = add_tensor(gm, f"{name}_scale", mapping.scale.clone(), node)
    return scale, add_tensor(gm, f"{name}_zero_point", mapping.zero.clone(), node)


def _call(gm: GraphModule, before: Node, target: Any, *args: Any) -> Node:
    with gm.graph.inserting_before(before):
        return gm.graph.call_function(target, args)

"""Batch norms with fixed statistics, and the convolutions and products that can take them in.

y = x s + t on axis 1, with s = weight / sqrt(variance + epsilon) and t = bias - mean s (Ioffe and Szegedy,
2015, arXiv:1502.03167, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.fx import Node

from ....ir.blocks.walk import bare, users
from ....ir.fx.graph import add_tensor, attribute, replace_tensor
from ....ir.fx.operators import bind, packet
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from ...common.own_weights import readers, shared
from .linear import like
from .rounds import Fold

ATEN = torch.ops.aten
CONVOLUTIONS = (ATEN.conv1d.default, ATEN.conv2d.default, ATEN.conv3d.default)


def look(program: Program) -> Iterator[Fold]:
    """What can be folded of an fx program's batch norms, and why the others stay."""
    graph = view(program)
    read, ends = readers(graph), {bare(value) for value in graph.outputs}
    for value in graph.values:
        if not isinstance(value.native, Node) or packet(value.native) != "aten.batch_norm":
            continue
        arguments = bind(value.native)
        x = graph.of(arguments["input"])
        if reason := _unfit(program, arguments):
            yield Fold(value, reason=reason)
            continue
        maker = _turned(bare(x))
        behind = _behind(maker, bare(x), value, read, ends)
        if not behind:
            yield _back(program, value, x, maker, arguments)
            continue
        ahead = _ahead(value, read, ends)
        if ahead:
            yield Fold(value, reason=f"{behind}, and {ahead}")
        else:
            yield _on(program, value, x, arguments)


def _unfit(program: Program, arguments: Mapping[str, Any]) -> str:
    if arguments["training"]:
        return "it is in training mode: put set-mode{training=false} before"
    for name in ("running_mean", "running_var", "weight", "bias"):
        node = arguments[name]
        if node is None and name in ("weight", "bias"):
            continue
        if not isinstance(node, Node) or node.op != "get_attr":
            return f"its {name.replace('_', ' ')} is no stored tensor"
    return ""


def _numbers(program: Program, arguments: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, t), float64 (channels,)."""

    def stored(name: str, missing: float) -> torch.Tensor:
        node = arguments[name]
        tensor = None if node is None else attribute(program.graph, node.target).detach().double()
        return torch.tensor(missing, dtype=torch.float64) if tensor is None else tensor

    scale = stored("weight", 1.0) / (stored("running_var", 1.0) + arguments["eps"]).sqrt()
    return scale, stored("bias", 0.0) - stored("running_mean", 0.0) * scale


def _turned(value: Value) -> Value:
    """What gives the channels of a value's axis 1 on its last axis, past a transposition; or the value."""
    if value.op == "transpose" and value.inputs[0] is not None:
        perm = value.attrs["perm"]
        if perm[1] == len(perm) - 1:
            return bare(value.inputs[0])
    return value


def _takes(value: Value, last: bool, read: Mapping[int, int]) -> str:
    """Why the weights of a value's call cannot change; empty where they can. last: its channels are last."""
    node = value.native
    right = ATEN.linear.default if last else None
    if not isinstance(node, Node) or not (node.target is right or (not last and node.target in CONVOLUTIONS)):
        return f"{value.name} ({value.op}) is no convolution or product over its channels"
    if bind(node)["bias"] is not None and len(value.inputs) < 3:
        return f"the bias of {value.name} is not stored"
    reason = shared(value.inputs[1:], read)
    return f"{reason}, in {value.name}" if reason else ""


def _behind(maker: Value, x: Value, norm: Value, read: Mapping[int, int], ends: set[Value]) -> str:
    """Why what makes the input does not take a batch norm in."""
    last = maker != x or len(x.shape or ()) == 2
    if reason := _takes(maker, last, read):
        return reason
    for value, user in {maker: x, x: norm}.items() if maker != x else ((x, norm),):
        others = [each for each in users(value) if each != user]
        if others or value in ends:
            return f"{others[0].name if others else 'an output'} reads {value.name} too"
    return ""


def _ahead(norm: Value, read: Mapping[int, int], ends: set[Value]) -> str:
    """Why what reads the result does not take a batch norm in."""
    following = list(users(norm))
    if norm in ends or not following:
        return f"{norm.name} is an output"
    for value in following:
        if value.inputs[0] is None or bare(value.inputs[0]) != norm:
            return f"{value.name} ({value.op}) needs its result"
        if reason := _takes(value, len(norm.shape or ()) == 2, read):
            return reason
        if value.op != "linear" and any(bind(value.native)["padding"]):
            return f"{value.name} pads with zeros, which the norm moves"
    return ""


def _back(program: Program, norm: Value, x: Value, maker: Value, arguments: Mapping[str, Any]) -> Fold:
    def apply() -> None:
        scale, shift = _numbers(program, arguments)
        weight = _weight(program, maker)
        _write(program, maker, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), scale, shift)
        norm.native.replace_all_uses_with(x.native)

    return Fold(norm, (maker,), (maker, bare(x)), apply)


def _on(program: Program, norm: Value, x: Value, arguments: Mapping[str, Any]) -> Fold:
    following = tuple(users(norm))

    def apply() -> None:
        scale, shift = _numbers(program, arguments)
        for value in following:
            weight = _weight(program, value)
            groups = bind(value.native).get("groups", 1)
            of, to = (_by_group(each, weight, groups) for each in (scale, shift))
            moved = (weight * to).flatten(1).sum(dim=1)
            _write(program, value, weight * of, torch.ones_like(moved), moved)
        norm.native.replace_all_uses_with(x.native)

    return Fold(norm, following, (bare(x), *following), apply)


def _by_group(numbers: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(channels,) as what each element of a weight, (out, channels / groups, ...), is multiplied by."""
    by = numbers.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return by.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2)).expand_as(weight)


def _weight(program: Program, value: Value) -> torch.Tensor:
    return attribute(program.graph, bind(value.native)["weight"].target).detach().double()


def _write(
    program: Program, value: Value, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    """Puts in a weight, and scale * bias + shift, which is made where there is no bias."""
    gm, node, arguments = program.graph, value.native, bind(value.native)
    old = attribute(gm, arguments["weight"].target)
    replace_tensor(gm, arguments["weight"], like(old, weight))
    bias = arguments["bias"]
    if bias is not None:
        stored = attribute(gm, bias.target)
        replace_tensor(gm, bias, like(stored, stored.detach().double() * scale + shift))
    else:
        path = f"{str(arguments['weight'].target).rpartition('.')[0] or node.name}.bias"
        made = add_tensor(gm, path, like(old, shift), node)
        node.args = (*node.args[:2], made, *node.args[3:])

"""Frequencies of rotations: what a text's places are multiplied by on the way to sines and cosines."""

from __future__ import annotations

import operator
from collections.abc import Set
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from ....ir.program import Program

aten = torch.ops.aten
Scaling = Literal["linear", "ntk"]
_PRODUCTS = {aten.mul.Tensor, aten.matmul.default, aten.bmm.default, aten.einsum.default, aten.linear.default}
_MOVES = {
    "to", "_to_copy", "contiguous", "clone", "detach", "alias", "expand", "unsqueeze", "squeeze", "reshape",
    "view", "transpose", "permute", "slice", "t",
}  # fmt: skip
_THROUGH = _MOVES | {"split", "chunk", "flatten", "cat", "stack", "repeat_interleave", "repeat", "add"}


def frequencies(program: Program) -> list[Node]:
    """Constants that one factor of both a sine's and a cosine's argument is, each once, in order."""
    graph = program.graph.graph
    fixed: set[Node] = set()
    for node in graph.nodes:
        if _fixed(node, fixed):
            fixed.add(node)
    sines, cosines = (
        {
            found
            for node in graph.find_nodes(op="call_function", target=wave)
            for found in _factors(node, fixed)
        }
        for wave in (aten.sin.default, aten.cos.default)
    )
    return [node for node in graph.nodes if node in sines & cosines]


def scaled(values: Tensor, factor: float, how: Scaling) -> Tensor:
    """Frequencies for texts that are `factor` times as long.

    "linear" divides all, as places were closer together (Chen et al., 2023, arXiv:2306.15595); "ntk" the
    lowest by the factor and the highest not at all, as another base does (Peng et al., 2023,
    arXiv:2309.00071, section 3.1).
    """
    if how == "linear":
        return values / factor
    size = values.double().abs()
    some = size > 0
    high, low = size[some].max(), size[some].min()
    span = (high / low).log()
    share = torch.where(some, (high / size.clamp(min=float(low))).log() / span, 0.0) if span > 0 else 1.0
    return (values.double() * factor**-share).to(values.dtype)


def turns(rows: Node) -> bool:
    """Whether rows of a table multiply something, as rotations do; those of an embedding are added."""
    stack, seen = [rows], {rows}
    while stack:
        for user in stack.pop().users:
            if user.target is aten.mul.Tensor:
                return True
            if user not in seen and (_name(user) in _THROUGH - {"add"} or user.target is operator.getitem):
                seen.add(user)
                stack.append(user)
    return False


def _factors(wave: Node, fixed: Set[Node]) -> set[Node]:
    """Constants that what is no constant is multiplied by, before a sine."""
    found: set[Node] = set()
    stack, seen = _tensors(wave), set()
    while stack:
        top = stack.pop()
        if top in seen:
            continue
        seen.add(top)
        operands = _tensors(top)
        if top.target in _PRODUCTS:
            constants = [one for one in operands if one in fixed]
            if len(constants) == 1 and (root := _root(constants[0])) is not None:
                found.add(root)
            stack += [one for one in operands if one not in fixed]
        elif _name(top) in _THROUGH:
            stack += operands
    return found


def _root(node: Node) -> Node | None:
    """Under moves, a list of numbers."""
    while node.op == "call_function" and _name(node) in _MOVES:
        node = node.args[0]  # type: ignore[assignment]
    return node if node.meta["val"].dim() and node.meta["val"].is_floating_point() else None


def _fixed(node: Node, fixed: Set[Node]) -> bool:
    """Whether no input's values or sizes are in its numbers; how far it is expanded says nothing of them."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return node.op == "get_attr"
    sized = any(isinstance(x.meta.get("val"), torch.SymInt) for x in node.all_input_nodes)
    return (not sized or _name(node) in _MOVES) and all(one in fixed for one in _tensors(node))


def _tensors(node: Node) -> list[Node]:
    return [x for x in node.all_input_nodes if isinstance(x.meta.get("val"), torch.Tensor)]


def _name(node: Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return packet._qualified_op_name.partition("::")[2] if packet is not None else ""

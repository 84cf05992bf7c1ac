"""A scale and a shift taken into the weights of a product, on the side that it reads or on that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch.fx import Node

from ....ir.blocks.base import Linear
from ....ir.blocks.walk import bare, passes
from ....ir.fx.graph import add_tensor, attribute, call, replace_tensor
from ....ir.program import Program
from ....ir.values import Value
from ...common.own_weights import shared

ATEN = torch.ops.aten
PRODUCTS = {"linear", "matmul", "conv1d"}


def unfit(linear: Linear, read: Mapping[int, int], inputs: bool) -> str:
    """Why a product takes nothing in; empty where it can.

    Args:
        read: of the graph (own_weights.readers).
        inputs: on the side that it reads.
    """
    if linear.axis != -1 and (inputs or linear.groups != 1):
        return f"{linear.root.name} is a convolution"
    if linear.groups != 1:
        return f"{linear.root.name} is a grouped product"
    reason = shared((linear.weight, linear.bias), read)
    return f"{reason}, in {linear.root.name}" if reason else ""


def take_input(program: Program, linear: Linear, scale: torch.Tensor, shift: torch.Tensor | None) -> None:
    """W (scale x + shift) + b as W' x + b'. scale, shift: float64 (in features,); no shift is none."""
    weight = _matrix(program, linear)
    _write(program, linear, weight * scale)
    if shift is not None and bool(shift.any()):
        _add_bias(program, linear, weight @ shift)


def take_output(program: Program, linear: Linear, scale: torch.Tensor, shift: torch.Tensor | None) -> Node:
    """scale (W x + b) + shift as W' x + b', and what gives that. scale, shift: float64 (out features,)."""
    _write(program, linear, _matrix(program, linear) * scale[:, None])
    if linear.bias is not None:
        node: Node = linear.bias.native
        old = attribute(program.graph, str(node.target))
        new = old.detach().double().reshape(-1) * scale + (0 if shift is None else shift)
        replace_tensor(program.graph, node, like(old, new.reshape(old.shape)))
    elif shift is not None and bool(shift.any()):
        return _add_bias(program, linear, shift)
    return linear.root.native


def reads(value: Value, linears: Iterable[Linear]) -> tuple[list[Linear], list[Value]]:
    """(products that read a value, its other users), both seen through identities and dropouts."""
    found = [linear for linear in linears if bare(linear.input) == value]
    inside = {each for linear in found for each in linear.body}
    others, stack = [], [value]
    while stack:
        for user in stack.pop().users:
            if user not in inside and not passes(user):
                others.append(user)
            elif passes(user) or user.op == "reshape":  # flattened rows, before the product
                stack += [user] if user not in {linear.root for linear in found} else []
    return found, others


def _matrix(program: Program, linear: Linear) -> torch.Tensor:
    """(out, in), float64; axes of a convolution's single position are left out."""
    tensor = attribute(program.graph, str(linear.weight.native.target)).detach().double()
    tensor = tensor.reshape(tensor.shape[0], -1)
    return tensor if linear.transposed else tensor.T


def _write(program: Program, linear: Linear, matrix: torch.Tensor) -> None:
    node: Node = linear.weight.native
    old = attribute(program.graph, str(node.target))
    matrix = matrix if linear.transposed else matrix.T
    replace_tensor(program.graph, node, like(old, matrix.reshape(old.shape)))


def _add_bias(program: Program, linear: Linear, shift: torch.Tensor) -> Node:
    """Adds (out features,) to a bias, or makes one; the node that gives the product with it."""
    gm = program.graph
    if linear.bias is not None:
        node: Node = linear.bias.native
        old = attribute(gm, str(node.target))
        replace_tensor(gm, node, like(old, old.detach().double() + shift.reshape(old.shape)))
        return linear.root.native
    product: Node = next(value for value in linear.body if value.op in PRODUCTS).native
    weight: Node = linear.weight.native
    name = f"{str(weight.target).rpartition('.')[0] or product.name}.bias"
    bias = like(attribute(gm, str(weight.target)), shift)
    if product.target in (ATEN.linear.default, ATEN.conv1d.default):
        product.args = (*product.args[:2], add_tensor(gm, name, bias, product), *product.args[3:])
        return linear.root.native
    after = product.next
    total = call(gm.graph, ATEN.add.Tensor, product, add_tensor(gm, name, bias, after), before=after)
    product.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
    return total if product is linear.root.native else linear.root.native


def like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """New numbers in the precision of the old; a parameter where that is one."""
    new = new.to(old.dtype).contiguous()
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new

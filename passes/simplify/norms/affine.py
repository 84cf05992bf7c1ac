"""gamma x + beta in the place of a norm, as two calls over two parameters of its own."""

from __future__ import annotations

import torch
from torch.fx import Node

from ....ir.blocks.base import Norm
from ....ir.blocks.walk import bare
from ....ir.fx.graph import add_tensor, call
from ....ir.program import Program

ATEN = torch.ops.aten


def own(norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm's own scale and shift, float64 (features,): ones and zeros where it has none."""
    width = int(norm.root.shape[-1])  # type: ignore[index, arg-type]
    found = []
    for value, plain in ((norm.weight, torch.ones), (norm.bias, torch.zeros)):
        tensor = None if value is None else bare(value).tensor
        found.append(
            plain(width, dtype=torch.float64) if tensor is None else tensor.detach().double().reshape(-1)
        )
    return found[0], found[1]


def unfit(norm: Norm) -> str:
    """Why no affine map can stand in a norm's place; empty where one can."""
    if norm.kind == "no_norm":
        return "it is an element-wise affine map already"
    if norm.input.dtype != norm.root.dtype:
        return f"it makes {norm.root.dtype} of {norm.input.dtype}"
    if not norm.root.shape or not isinstance(norm.root.shape[-1], int):
        return "its width is not known"
    if norm.input.shape != norm.root.shape:
        return f"it takes {norm.input.shape} to {norm.root.shape}"
    if any(value is not None and bare(value).tensor is None for value in (norm.weight, norm.bias)):
        return "its scale is computed"
    return ""


def replace(program: Program, norm: Norm, gamma: torch.Tensor, beta: torch.Tensor) -> None:
    """Puts the map in place. What computed the norm is left without users: call `prune` after the last.

    Args:
        norm: of this program, or of one that it is a clone of.
        gamma, beta: (features,).
    """
    gm = program.graph
    nodes = {node.name: node for node in gm.graph.nodes}
    root, source = nodes[norm.root.native.name], nodes[norm.input.native.name]
    dtype, path = root.meta["val"].dtype, _path(norm) or root.name
    operands: list[Node] = []
    for part, tensor in (("weight", gamma), ("bias", beta)):
        parameter = torch.nn.Parameter(tensor.to(dtype))
        operands.append(add_tensor(gm, f"{path}.nonorm_{part}", parameter, root))
    product = call(gm.graph, ATEN.mul.Tensor, source, operands[0], before=root)
    result = call(gm.graph, ATEN.add.Tensor, product, operands[1], before=root)
    root.replace_all_uses_with(result)


def _path(norm: Norm) -> str:
    """The module that a norm's own parameters stand in; empty where there is none."""
    for value in (norm.weight, norm.bias):
        node = None if value is None else bare(value).native
        if isinstance(node, Node):
            return str(node.target).rpartition(".")[0]
    return ""

"""Output projections of blocks: what they read, what they add to, and the parameters that may be refitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ...ir.blocks import recognise
from ...ir.blocks.base import Linear, Residual
from ...ir.blocks.walk import bare
from ...ir.fx.graph import attribute, set_attribute
from ...ir.program import Program
from ...ir.view import view
from .own_weights import readers, shared


@dataclass(frozen=True)
class OutputProjection:
    """An output projection of an attention or a feed-forward, with weights of its own.

    operand: what it reads, features last. root: what it gives. weight, bias: paths of parameters. transposed:
    the weight is (out, in). stream, sum: what its result is added to, and the sum; None where something comes
    between, or where the stream is only known later.
    """

    operand: Node
    root: Node
    weight: str
    bias: str | None
    transposed: bool
    stream: Node | None
    sum: Node | None

    def matrix(self, gm: GraphModule) -> np.ndarray:
        """The weight as (in, out) in float64, the bias its last row where there is one."""
        weight = attribute(gm, self.weight).detach().double()
        weight = weight.T if self.transposed else weight
        if self.bias is not None:
            weight = torch.cat([weight, attribute(gm, self.bias).detach().double()[None]])
        return np.asarray(weight)

    def write(self, gm: GraphModule, matrix: np.ndarray) -> None:
        """Puts new parameters in place of the old ones; `matrix` as from `matrix`, of any width."""
        tensor = torch.from_numpy(matrix)
        if self.bias is not None:
            _put(gm, self.bias, tensor[-1])
            tensor = tensor[:-1]
        _put(gm, self.weight, tensor.T if self.transposed else tensor)


def projections(program: Program) -> tuple[list[OutputProjection], list[str]]:
    """Those of an fx program, in graph order, and a sentence for each block whose own cannot be refitted."""
    graph = view(program)
    blocks = recognise(graph)
    nodes = {node.name: number for number, node in enumerate(program.graph.graph.nodes)}
    added = {bare(residual.branch): residual for residual in blocks.residual}
    read = readers(graph)
    found, notes = [], []
    linears = [block.o for block in blocks.attention] + [block.down for block in blocks.feed_forward]
    for linear in filter(None, linears):
        reason = _unfit(linear, read)
        if reason:
            notes.append(f"{linear.root.name} keeps its weights: {reason}")
        else:
            found.append(projection(linear, added.get(linear.root), nodes))
    return sorted(found, key=lambda one: nodes[one.root.name]), notes


def _unfit(linear: Linear, read: dict[int, int]) -> str:
    if linear.axis != -1 or linear.groups != 1:
        return "it is a convolution"
    return shared((linear.weight, linear.bias), read)


def projection(linear: Linear, residual: Residual | None, order: dict[str, int]) -> OutputProjection:
    """That of a Linear with stored weights. residual: the sum its result goes into, if it does. order: the
    places of an fx program's nodes by their names."""
    stream = sum_ = None
    if residual is not None and order[residual.stream.native.name] < order[linear.body[0].native.name]:
        stream, sum_ = residual.stream.native, residual.root.native
    return OutputProjection(
        linear.input.native,
        linear.root.native,
        str(linear.weight.native.target),
        str(linear.bias.native.target) if linear.bias is not None else None,
        linear.transposed,
        stream,
        sum_,
    )


def _put(gm: GraphModule, path: str, tensor: torch.Tensor) -> None:
    old = attribute(gm, path)
    new = tensor.to(old.dtype).contiguous()
    set_attribute(
        gm, path, torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
    )

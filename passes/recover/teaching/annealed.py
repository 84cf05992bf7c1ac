"""Norms that give way to the affine maps in their places while a program trains.

norm(x) (1 - share) + (gamma x + beta) share, with the share growing from 0 to 1: the layers after it get used
to activations that nobody normalises. MobileBERT (Sun et al., 2020, arXiv:2004.02984) has the maps from the
start of a pre-training; here weights come from a model with norms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Norm
from ....ir.blocks.walk import bare
from ....ir.errors import PassError
from ....ir.fx.graph import add_tensor, attribute, call, clone
from ....ir.program import Program
from ....ir.view import view
from ...manager.contract import Feed
from .objective import Watched

ATEN = torch.ops.aten


class Annealed(Watched):
    """A student whose norms go out over the run; without gradients it is the program itself, as it will be.

    Args:
        teacher: fx, the model that the norms are taken from.
        until: the share of the run after which only the maps are left, above 0.

    Raises:
        PassError: no map stands in the place of a norm of the teacher.
    """

    def __init__(
        self, program: Program, teacher: Program, nodes: list[Node], until: float, ends: Sequence[str] = ()
    ) -> None:
        graph, self.share, self.count = mixed(program, teacher)
        super().__init__(program, graph, nodes, ends)
        self._until = until

    def __call__(self, feed: Feed, share: float) -> Sequence[torch.Tensor]:
        self.share.fill_(min(1.0, share / self._until) if torch.is_grad_enabled() else 1.0)
        return super().__call__(feed, share)


def mixed(program: Program, teacher: Program) -> tuple[GraphModule, torch.Tensor, int]:
    """A clone of a program's graph over the same weights, with norms of the teacher beside its affine maps.

    A map and a norm belong together where their parameters stand in one module. Nodes keep their names.

    Returns:
        The graph; the share of the maps in it, a number; how many there are.
    """
    norms = {_owner(norm): norm for norm in recognise(view(teacher)).norm if norm.kind != "no_norm"}
    graph = clone(program.graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    pairs = [
        (norm, norms[_owner(norm)])
        for norm in recognise(view(program)).norm
        if norm.kind == "no_norm" and _fits(norm, norms.get(_owner(norm)))
    ]
    if not pairs:
        raise PassError(
            "anneal mixes out the norms that nonorm replaced, and no affine map stands where one of "
            "the captured model's norms did: put nonorm before, or leave anneal out"
        )
    first = next(iter(node for node in graph.graph.nodes if node.op != "placeholder"))
    share = add_tensor(graph, "annealed_share", torch.zeros(()), first)
    left = call(graph.graph, ATEN.rsub.Scalar, share, 1, before=first)
    for mapped, norm in pairs:
        root, x = nodes[mapped.root.native.name], nodes[mapped.input.native.name]
        own = call(graph.graph, root.target, *root.args, before=root)
        parts = [
            call(graph.graph, ATEN.mul.Tensor, value, by, before=root)
            for value, by in ((_normed(graph, norm, x, root), left), (own, share))
        ]
        root.target, root.args, root.kwargs = ATEN.add.Tensor, tuple(parts), {}
    graph.recompile()
    return graph, attribute(graph, str(share.target)), len(pairs)


def _owner(norm: Norm) -> str:
    """The path of the module that a norm's scale stands in; empty without one."""
    node = None if norm.weight is None else bare(norm.weight).native
    return str(node.target).rpartition(".")[0] if isinstance(node, Node) else ""


def _fits(mapped: Norm, norm: Norm | None) -> bool:
    if norm is None or not _owner(norm) or not mapped.root.shape or not norm.root.shape:
        return False
    stored = [bare(value).tensor for value in (norm.weight, norm.bias) if value is not None]
    return mapped.root.shape[-1] == norm.root.shape[-1] and all(tensor is not None for tensor in stored)


def _normed(graph: GraphModule, norm: Norm, x: Node, before: Node) -> Node:
    """The teacher's norm of x, over its own numbers, which learn nothing."""
    weight, bias = (
        value
        and add_tensor(graph, f"annealed.{before.name}", bare(value).tensor.detach().reshape(-1), before)
        for value in (norm.weight, norm.bias)
    )
    width = [int(norm.root.shape[-1])]  # type: ignore[index, arg-type]
    if norm.kind == "rms_norm":
        return call(graph.graph, ATEN.rms_norm.default, x, width, weight, norm.epsilon, before=before)
    return call(graph.graph, ATEN.layer_norm.default, x, width, weight, bias, norm.epsilon, before=before)

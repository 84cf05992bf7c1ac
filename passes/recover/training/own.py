"""A student's own weights: what a clone shares with the program before may not be trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import GraphModule, Node

from ....ir.fx.graph import attribute, clone, set_attribute
from ....ir.program import Program

ATEN = torch.ops.aten
SPARSE = 0.1


def own_parameters(graph: GraphModule) -> dict[str, torch.nn.Parameter]:
    """Copies of every floating parameter, put in their places; by name, one shared by several uses once."""
    own: dict[str, torch.nn.Parameter] = {}
    copies: dict[int, torch.nn.Parameter] = {}
    for name in dict.fromkeys(str(node.target) for node in graph.graph.find_nodes(op="get_attr")):
        tensor = attribute(graph, name)
        if isinstance(tensor, torch.nn.Parameter) and tensor.is_floating_point():
            if id(tensor) not in copies:
                copy = torch.nn.Parameter(tensor.detach().clone())
                copies[id(tensor)] = own[name] = copy
            set_attribute(graph, name, copies[id(tensor)])
    return own


def keep_zeros(parameters: Iterable[torch.nn.Parameter]) -> None:
    """No gradient reaches the zeros of sparse matrices, those with a share of SPARSE zeros or more: what was
    pruned stays pruned. A matrix of nothing but zeros has yet to learn."""
    for parameter in parameters:
        kept = parameter.detach() != 0
        share = 1 - float(kept.float().mean())
        if parameter.dim() > 1 and SPARSE <= share < 1:
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept)


def tables(graph: GraphModule) -> set[str]:
    """Names of the parameters that are read by look-ups alone."""
    readers: dict[str, list[Node]] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        readers.setdefault(str(node.target), []).extend(node.users)
    return {
        name
        for name, users in readers.items()
        if users and all(user.target is ATEN.embedding.default for user in users)
    }


def watched(graph: GraphModule, nodes: list[Node]) -> GraphModule:
    """A clone over the same weights that gives its outputs and, after them, the values of `nodes`."""
    twin = clone(graph)
    by_name = {node.name: node for node in twin.graph.nodes}
    output = twin.graph.output_node()
    results = torch.utils._pytree.tree_leaves(output.args)
    output.args = ((*results, *(by_name[node.name] for node in nodes)),)
    twin.recompile()
    return twin


def floating(program: Program) -> list[Node]:
    """The nodes that give the floating outputs."""
    results = torch.utils._pytree.tree_leaves(program.graph.graph.output_node().args)
    return [node for node in results if node.meta["val"].is_floating_point()]

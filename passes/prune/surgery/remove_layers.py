"""Whole layers taken out of an fx graph."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node

from ....ir.blocks.stream import StreamLayer
from ....ir.errors import PassError
from ....ir.fx.graph import prune
from ....ir.program import Program


def remove_layers(program: Program, layers: Iterable[StreamLayer]) -> None:
    """Lets what a layer is given stand for what it gives, in place; weights of no other use vanish.

    What does not depend on the stream stays for the layers that use it: a bias of relative positions that the
    first layer computes for all, tables of rotations, shared weights.

    Args:
        layers: as `streams` found them in this program or in one that it is a clone of.

    Raises:
        PassError: something that a layer computes from the stream is used outside it, named with its user.
    """
    graph = program.graph.graph
    layers = list(layers)
    by_name = {node.name: node for node in graph.nodes}
    ends = [(by_name[layer.entry.name], by_name[layer.exit.name]) for layer in layers]
    inside = [_between(entry, exit) for entry, exit in ends]
    for entry, exit in reversed(
        ends
    ):  # from the last on, so that an entry that goes too is replaced after it
        exit.replace_all_uses_with(entry)
    prune(program.graph)
    left = set(graph.nodes)
    for layer, nodes in zip(layers, inside, strict=True):
        for node in left & nodes.keys():
            for user in node.users.keys() - nodes.keys():
                raise PassError(
                    f"the layer at {layer.blocks[0].root.name} cannot go: {node.name}, which it computes, is "
                    f"used outside it, by {user.name}"
                )


def _between(entry: Node, exit: Node) -> dict[Node, None]:
    """What is computed from the entry on the way to the exit, that included, in the graph's order."""
    above = {exit}
    stack = [exit]
    while stack:
        for node in stack.pop().all_input_nodes:
            if node not in above and node is not entry:
                above.add(node)
                stack.append(node)
    found: dict[Node, None] = {}
    for node in entry.graph.nodes:
        if node in above and any(source is entry or source in found for source in node.all_input_nodes):
            found[node] = None
    return found

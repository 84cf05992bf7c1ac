"""Whole layers taken out of an fx graph."""

from __future__ import annotations

from collections.abc import Iterable

from ....ir.blocks.stream import StreamLayer
from ....ir.errors import PassError
from ....ir.fx.graph import prune
from ....ir.program import Program
from ...common.between import between


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
    inside = [between(entry, exit) for entry, exit in ends]
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

"""A graph cut at its residual stream into links, each from one state of the stream to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node

from ....ir.errors import PassError
from ....ir.fx.graph import attribute, clone, set_attribute
from ....ir.program import Program
from ...common.outputs import arguments
from ...manager.contract import Feed
from .losses.base import Term
from .objective import Student

# (number of a link, share of the run that is done) -> what takes its place; None leaves the stream as it is.
Choose = Callable[[int, float], torch.nn.Module | None]


@dataclass
class Chain:
    """head: inputs -> stream. links: (stream, *inputs) -> stream. tail: (stream, *inputs) -> outputs. All of
    them over the weights of the graph."""

    head: torch.nn.Module
    links: Sequence[torch.nn.Module]
    tail: torch.nn.Module


def chain(graph: GraphModule, names: Sequence[str]) -> Chain:
    """Cuts a graph behind the nodes of these names, which follow each other on the stream.

    What does not come from the stream (masks, positions) is computed in each link that needs it.

    Raises:
        PassError: a link needs another state of the stream than the one before it; named.
    """
    by_name = {node.name: node for node in graph.graph.nodes}
    cuts, output = [by_name[name] for name in names], graph.graph.output_node()
    steps = list(zip(cuts, [*cuts[1:], output], strict=True))
    *links, tail = [_piece(graph, start, end, cuts) for start, end in steps]
    return Chain(_piece(graph, None, cuts[0], cuts), links, tail)


def through(program: Program, terms: Sequence[Term], chain: Chain, choose: Choose) -> Student:
    """A student that goes along a chain, `choose` naming what takes the place of each link.

    Args:
        terms: at the outputs.
    """
    results = torch.utils._pytree.tree_leaves(program.graph.graph.output_node().args)

    def student(feed: Feed, share: float) -> list[torch.Tensor]:
        inputs = arguments(program, feed)
        stream = chain.head(*inputs)
        for number in range(len(chain.links)):
            link = choose(number, share)
            stream = stream if link is None else link(stream, *inputs)
        found = torch.utils._pytree.tree_leaves(chain.tail(stream, *inputs))
        values = dict(zip(results, found, strict=True))
        return [values[node] for term in terms for node in term.learns]

    return student


def frozen(graph: GraphModule) -> GraphModule:
    """A clone over the same numbers of which no gradient is taken; one flows through it."""
    twin = clone(graph)
    for name in {str(node.target) for node in twin.graph.find_nodes(op="get_attr")}:
        tensor = attribute(twin, name)
        if isinstance(tensor, torch.nn.Parameter):
            owner, _, leaf = name.rpartition(".")
            del twin.get_submodule(owner)._parameters[leaf]
            set_attribute(twin, name, tensor.detach())
    return twin


def _piece(graph: GraphModule, start: Node | None, end: Node, cuts: Sequence[Node]) -> GraphModule:
    """A module of what gives `end` (all outputs at the output node), from `start` and the inputs."""
    needed: set[Node] = set()
    stack = list(end.all_input_nodes) if end.op == "output" else [end]
    while stack:
        node = stack.pop()
        if node in needed or node is start:
            continue
        if node in cuts and node is not end:
            raise PassError(
                f"{end.name} needs {node.name} past the layers between them, so they cannot change"
            )
        needed.add(node)
        stack += node.all_input_nodes
    piece = Graph()
    values: dict[Node, Node] = {}
    if start is not None:
        values[start] = piece.placeholder("stream")
    for node in graph.graph.nodes:
        if node.op == "placeholder" or node in needed:
            values[node] = piece.node_copy(node, lambda operand: values[operand])
    results = end.args[0] if end.op == "output" else end
    piece.output(torch.fx.map_arg(results, lambda operand: values[operand]))
    return GraphModule(graph, piece)

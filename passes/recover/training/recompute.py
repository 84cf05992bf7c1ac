"""Activation checkpointing: what a layer computes inside is not kept for the gradient but computed again.

Memory falls to the layers' boundaries for a third more time (Chen et al., 2016, arXiv:1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.split_module import split_module
from torch.utils.checkpoint import checkpoint

from ....ir.fx.graph import attribute, set_attribute


def recomputing(graph: GraphModule, ends: Iterable[str]) -> torch.nn.Module:
    """The same function over the same parameters, cut behind the nodes named `ends`."""
    split = pieces(graph, ends)
    for name, piece in list(split.named_children()):
        if isinstance(piece, GraphModule):
            setattr(split, name, Recomputed(piece))
    return split


def pieces(graph: GraphModule, ends: Iterable[str]) -> GraphModule:
    """The same, a module a piece, whose activations are kept. A piece has the weights that it reads."""
    ends, part = set(ends), 0
    parts: dict[Node, int] = {}
    for node in graph.graph.nodes:
        parts[node] = part
        part += node.name in ends
    split = split_module(graph, graph, lambda node: parts[node], keep_original_order=True)
    for call in split.graph.find_nodes(op="call_module"):
        _take_in(split, call)
    split.graph.eliminate_dead_code()
    left = [str(node.target) for node in split.graph.nodes if node.op in ("get_attr", "call_module")]
    return GraphModule({name: attribute(split, name) for name in left}, split.graph)


def _take_in(split: GraphModule, call: Node) -> None:
    """Give a piece the weights that split_module hands to it."""
    piece, rest = attribute(split, str(call.target)), list[Any]()
    for given, taken in zip(call.args, piece.graph.find_nodes(op="placeholder"), strict=True):
        read_here = isinstance(given, Node) and given.op == "get_attr"
        weight = attribute(split, str(given.target)) if read_here else None  # type: ignore[union-attr]
        if not isinstance(weight, torch.Tensor):
            rest.append(given)
            continue
        set_attribute(piece, taken.name, weight)
        with piece.graph.inserting_before(taken):
            read = piece.graph.get_attr(taken.name)
        taken.replace_all_uses_with(read)
        piece.graph.erase_node(taken)
    call.args = tuple(rest)
    piece.recompile()


class Recomputed(torch.nn.Module):
    """A module whose activations are not kept."""

    def __init__(self, piece: torch.nn.Module) -> None:
        super().__init__()
        self.piece = piece

    def forward(self, *values: Any) -> Any:
        return checkpoint(self.piece, *values, use_reentrant=False)

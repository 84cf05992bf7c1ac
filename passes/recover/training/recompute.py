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


def recomputing(graph: GraphModule, ends: Iterable[str]) -> torch.nn.Module:
    """The same function over the same parameters, cut behind the nodes named `ends`."""
    ends, part = set(ends), 0
    parts: dict[Node, int] = {}
    for node in graph.graph.nodes:
        parts[node] = part
        part += node.name in ends
    split = split_module(graph, graph, lambda node: parts[node], keep_original_order=True)
    for name, piece in list(split.named_children()):
        if isinstance(piece, GraphModule):
            setattr(split, name, Recomputed(piece))
    return split


class Recomputed(torch.nn.Module):
    """A module whose activations are not kept."""

    def __init__(self, piece: torch.nn.Module) -> None:
        super().__init__()
        self.piece = piece

    def forward(self, *values: Any) -> Any:
        return checkpoint(self.piece, *values, use_reentrant=False)

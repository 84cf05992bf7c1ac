"""flatten, unflatten, chunk and expand_as, written in what torch's exporter spells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, Node

from ....ir.fx.mode import argument

aten = torch.ops.aten


def flatten(graph: Graph, node: Node) -> None:
    x, rank = _operand(node)
    first, last = (argument(node, name) % max(rank, 1) for name in ("start_dim", "end_dim"))
    size = node.meta["val"].shape[first] if rank else 1
    one = size if isinstance(size, int) else -1
    _reshape(node, x, [*_sizes(graph, x, range(first)), one, *_sizes(graph, x, range(last + 1, rank))])


def unflatten(graph: Graph, node: Node) -> None:
    x, rank = _operand(node)
    axis = argument(node, "dim") % rank
    sizes = [*_sizes(graph, x, range(axis)), *argument(node, "sizes")]
    _reshape(node, x, [*sizes, *_sizes(graph, x, range(axis + 1, rank))])


def chunk(graph: Graph, node: Node) -> None:
    """Of an axis whose size is known, as `fixed` says."""
    x, rank = _operand(node)
    axis = argument(node, "dim") % rank
    size = -(-x.meta["val"].shape[axis] // argument(node, "chunks"))
    node.target, node.args, node.kwargs = aten.split.Tensor, (x, size, axis), {}


def expand_as(graph: Graph, node: Node) -> None:
    x, like = node.all_input_nodes[0], node.all_input_nodes[-1]  # one node may be both
    sizes = _sizes(graph, like, range(like.meta["val"].dim()))
    node.target, node.args, node.kwargs = aten.expand.default, (x, sizes), {}


def fixed(node: Node) -> bool:
    """Whether the axis that a chunk cuts has a size."""
    x, rank = _operand(node)
    return isinstance(x.meta["val"].shape[argument(node, "dim") % rank], int)


def _operand(node: Node) -> tuple[Node, int]:
    x: Any = node.args[0]
    return x, x.meta["val"].dim()


def _sizes(graph: Graph, x: Node, axes: Iterable[int]) -> list[int | Node]:
    found: list[int | Node] = []
    for axis in axes:
        size = x.meta["val"].shape[axis]
        if not isinstance(size, int):
            size, value = graph.call_function(aten.sym_size.int, (x, axis)), size
            size.meta["val"] = value
        found.append(size)
    return found


def _reshape(node: Node, x: Node, sizes: list[Any]) -> None:
    node.target, node.args, node.kwargs = aten.reshape.default, (x, sizes), {}

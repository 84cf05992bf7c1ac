"""Operators that torch's exporter has no spelling of, or a wrong one, written in others; in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten


def spell(program: Any) -> None:
    """program: torch.export.ExportedProgram, whose nodes know what they give."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        written = _WRITTEN.get(node.target)
        if written is not None:
            with graph.inserting_before(node):
                written(graph, node)
    graph.eliminate_dead_code()


def _rsub(graph: Graph, node: Node) -> None:
    """1.0 - x of integers: the exporter looks for a subtraction from a number, which is none of torch's."""
    x, dtype = node.all_input_nodes[0], node.meta["val"].dtype
    if x.meta["val"].dtype != dtype:
        node.update_arg(0, graph.call_function(aten.to.dtype, (x, dtype)))


def _arange(graph: Graph, node: Node) -> None:
    """Up to a size, from a fraction: the exporter counts in the size's type, which is an integer."""
    node.update_kwarg("dtype", node.meta["val"].dtype)


def _isin(graph: Graph, node: Node) -> None:
    """Decomposed by sorting, which ONNX has no search in."""
    elements, tests = (node.all_input_nodes * 2)[:2]  # one node may be both
    row = graph.call_function(aten.reshape.default, (tests, [-1]))
    column = graph.call_function(aten.unsqueeze.default, (elements, -1))
    found = graph.call_function(aten.any.dim, (graph.call_function(aten.eq.Tensor, (column, row)), -1))
    if node.kwargs.get("invert", node.args[3] if len(node.args) > 3 else False):
        found = graph.call_function(aten.logical_not.default, (found,))
    node.replace_all_uses_with(found)


_WRITTEN: dict[Any, Callable[[Graph, Node], None]] = {
    aten.rsub.Scalar: _rsub,
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.isin.Tensor_Tensor: _isin,
}

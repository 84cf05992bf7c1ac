"""Operators that torch's exporter has no spelling of, or a wrong one, written in others; in place.

torch.onnx.export traces every program a second time, to decompose what it can't spell: half of the time of a
lowering. Where nothing is left to decompose, that is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from ....ir.fx.mode import argument
from . import reshaped
from .registry import torchlib
from .translations import translations

aten = torch.ops.aten
Rule = Callable[[Graph, Node], None]


def spell(program: Any) -> None:
    """program: torch.export.ExportedProgram, whose nodes know what they give."""
    _write(program, _WRITTEN)


def decomposed(program: Any, opset: int) -> bool:
    """Makes a program one that torch's exporter spells as it is, if it can; whether it is one.

    Args:
        program: torch.export.ExportedProgram, after `spell`. Operators on the way that stay are not touched.
        opset: that it is exported to.
    """
    graph = program.graph_module.graph
    known = _spelled(opset)
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function"
            and ("val" not in node.meta or (node.target not in known and not _decomposes(node)))
        ):
            return False
    _write(program, _DECOMPOSED)
    return True


def _decomposes(node: Node) -> bool:
    return node.target in _DECOMPOSED and (node.target is not aten.chunk.default or reshaped.fixed(node))


def _write(program: Any, rules: Mapping[Any, Rule]) -> None:
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if (rule := rules.get(node.target)) is not None:
            with graph.inserting_before(node):
                rule(graph, node)
    graph.eliminate_dead_code()
    for spec, given in zip(program.graph_signature.output_specs, graph.output_node().args[0], strict=True):
        if isinstance(given, Node):  # another than before, where what an output was went away
            spec.arg.name = given.name


@functools.cache
def _spelled(opset: int) -> frozenset[Any]:
    """The operators that torch's exporter spells and its decomposition, which takes apart what is composite
    and gives a view, leaves. It tells nobody but in here."""
    known = [each[0].fx_target for each in torchlib(opset).functions.values()]
    known += translations()
    return frozenset(target for target in known if target in _AS_THEY_ARE or not _taken_apart(target))


def _taken_apart(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload) or all(
        each.alias_info is None for each in target._schema.arguments
    ):
        return False
    try:
        return target._can_decompose()
    except RuntimeError:  # registered for an overload that there isn't
        return False


def _rsub(graph: Graph, node: Node) -> None:
    """1.0 - x of integers: the exporter looks for a subtraction from a number, which is none of torch's."""
    x, dtype = node.all_input_nodes[0], node.meta["val"].dtype
    if x.meta["val"].dtype != dtype:
        node.update_arg(0, graph.call_function(aten.to.dtype, (x, dtype)))


def _arange(graph: Graph, node: Node) -> None:
    """Up to a size, from a fraction: the exporter counts in the size's type, which is an integer."""
    node.update_kwarg("dtype", node.meta["val"].dtype)


def _over_all(graph: Graph, node: Node) -> None:
    """The largest of all: the exporter has no spelling of it without axes, which are all."""
    x = node.all_input_nodes[0]
    node.args = (x, argument(node, "dim") or list(range(x.meta["val"].dim())), argument(node, "keepdim"))
    node.kwargs = {}


def _isin(graph: Graph, node: Node) -> None:
    """Decomposed by sorting, which ONNX has no search in."""
    elements, tests = (node.all_input_nodes * 2)[:2]  # one node may be both
    row = graph.call_function(aten.reshape.default, (tests, [-1]))
    column = graph.call_function(aten.unsqueeze.default, (elements, -1))
    found = graph.call_function(aten.any.dim, (graph.call_function(aten.eq.Tensor, (column, row)), -1))
    if node.kwargs.get("invert", node.args[3] if len(node.args) > 3 else False):
        found = graph.call_function(aten.logical_not.default, (found,))
    node.replace_all_uses_with(found)


_WRITTEN: dict[Any, Rule] = {
    aten.rsub.Scalar: _rsub,
    aten.amax.default: _over_all,
    aten.amin.default: _over_all,
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.isin.Tensor_Tensor: _isin,
}


def _to(graph: Graph, node: Node) -> None:
    x, dtype = node.all_input_nodes[0], node.meta["val"].dtype
    if x.meta["val"].dtype == dtype:
        _skip(graph, node)
    else:
        node.target, node.args, node.kwargs = aten._to_copy.default, (x,), {"dtype": dtype}


def _skip(graph: Graph, node: Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    graph.erase_node(node)


def _drop(graph: Graph, node: Node) -> None:
    graph.erase_node(node)


def _square(graph: Graph, node: Node) -> None:
    x = node.all_input_nodes[0]
    node.target, node.args, node.kwargs = aten.mul.Tensor, (x, x), {}


def _is(target: Any) -> Rule:
    def rule(graph: Graph, node: Node) -> None:
        node.target = target

    return rule


_AS_THEY_ARE = {aten.contiguous.default, aten.reshape.default}

# What torch's decomposition makes of operators that stand in most programs.
_DECOMPOSED: dict[Any, Rule] = {
    aten.__and__.Tensor: _is(aten.bitwise_and.Tensor),
    aten.__or__.Tensor: _is(aten.bitwise_or.Tensor),
    aten._assert_tensor_metadata.default: _drop,
    aten.broadcast_to.default: _is(aten.expand.default),
    aten.chunk.default: reshaped.chunk,
    aten.expand_as.default: reshaped.expand_as,
    aten.flatten.using_ints: reshaped.flatten,
    aten.max.other: _is(aten.maximum.default),
    aten.min.other: _is(aten.minimum.default),
    aten.square.default: _square,
    aten.to.device: _to,
    aten.to.dtype: _to,
    aten.to.dtype_layout: _to,
    aten.to.other: _to,
    aten.unflatten.int: reshaped.unflatten,
}

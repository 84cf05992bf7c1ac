"""Local functions written out where they are called."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import ModelProto, NodeProto, inliner
from onnx_ir.passes import common

from ..errors import CaptureError
from ..onnx.opset import cannot_raise_nodes
from .standin import through_proto

MOST = 200_000  # nodes, when all functions are written out
_DEEP = 100  # functions that call each other
_Key = tuple[str, str, str]


def inline(model: ir.Model, path: Path) -> ir.Model:
    """The model without functions. One written in another opset than the model's is raised to that.

    Raises:
        CaptureError: a function that onnx cannot raise, or that takes a graph.
    """
    if not model.functions:
        return model
    _read_alike(model)
    imports = model.graph.opset_imports
    mixed = any(
        imports.get(domain, version) != version
        for function in model.functions.values()
        for domain, version in function.opset_imports.items()
    )
    try:
        if mixed:
            return through_proto(model, _raised)
        return common.InlinePass()(model).model
    except (RuntimeError, ValueError) as error:  # onnx's assertions, onnx_ir's refusals
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise CaptureError(f"'{path}' has functions that cannot be written out: {reason}") from error


def _read_alike(model: ir.Model) -> None:
    """Gives functions and model the same opset where every operator means the same in both."""
    every: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    newest = max(graph.opset_imports.get("", 0) for graph in every)
    for graph in every:
        nodes = ir.traversal.RecursiveGraphIterator(graph)
        if cannot_raise_nodes(nodes, graph.opset_imports.get("", newest), newest):
            return
    for graph in every:
        if "" in graph.opset_imports:
            graph.opset_imports[""] = newest


def _raised(model: ModelProto) -> ModelProto:
    """Written out with onnx's converter, which wants the types of what functions are given."""
    return inliner.inline_local_functions(onnx.shape_inference.infer_shapes(model), convert_version=True)


def check_functions(model: ModelProto, path: Path) -> None:
    """What functions come to when they are written out, counted without doing it.

    Raises:
        CaptureError: two functions of one name, one that calls itself, or more than MOST nodes.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise CaptureError(f"'{path}' is no valid model: two of its functions have the same name.")
    known: dict[_Key, int] = {}
    running: list[_Key] = []

    def of_function(key: _Key) -> int:
        if key in running:
            raise CaptureError(f"'{path}' is no valid model: its function {key[1]} calls itself.")
        if len(running) > _DEEP:
            raise CaptureError(f"'{path}' has functions that call each other over {_DEEP} deep: not read.")
        if key not in known:
            running.append(key)
            known[key] = sum(of_node(node) for node in functions[key].node)
            running.pop()
        return known[key]

    def of_node(node: NodeProto) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key in functions:
            return of_function(key)
        inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        inner += [g for a in node.attribute for g in a.graphs]
        return 1 + sum(of_node(each) for graph in inner for each in graph.node)

    count = sum(of_node(node) for node in model.graph.node) + sum(map(of_function, functions))
    if functions and count > MOST:
        raise CaptureError(
            f"'{path}' comes to {count:,} nodes with its functions written out; at most {MOST:,} are read."
        )

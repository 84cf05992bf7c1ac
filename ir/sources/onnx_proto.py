"""An ONNX protobuf, and the faults that a reader would stumble over, each in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from ..errors import CaptureError
from .onnx_nodes import check_attributes, check_texts, check_values
from .onnx_tensors import check_tensor, dense_constant, densify


def read_proto(path: Path) -> ModelProto:
    """The file's model, external data unread, sparse tensors made dense, whose tensors are what they say.

    Raises:
        CaptureError: no file, truncated or no model; no versions; a tensor without a type, of another size
            than its bytes, stored twice, or of a name that another has too; a sparse one that is too large.
    """
    if not path.is_file():
        raise CaptureError(f"there is no '{path}'.")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, TypeError, OSError) as error:
        raise CaptureError(f"'{path}' is truncated or no ONNX model.") from error
    graph = model.graph
    if not graph.node or not graph.output:
        raise CaptureError(f"'{path}' holds no graph: truncated or no ONNX model.")
    check_texts(model, path)
    _versions(model, path)
    _nodes_and_values(model, path)
    for inner in _graphs(graph):
        densify(inner, path)
    for function in model.functions:
        for node in function.node:
            dense_constant(node, path)
    for inner in _graphs(graph):
        _names(inner, path)
        for tensor in inner.initializer:
            check_tensor(tensor, f"the weight '{tensor.name}'", path)
    for node in _nodes(model):
        for attribute in node.attribute:
            tensors = [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
            for tensor in tensors:
                check_tensor(tensor, f"the tensor in {node.op_type} ({node.name or node.output[0]})", path)
    return model


def _versions(model: ModelProto, path: Path) -> None:
    if model.ir_version < 1:
        raise CaptureError(f"'{path}' is no valid model: it says no ir_version.")
    if model.ir_version > onnx.IR_VERSION:
        raise CaptureError(
            f"'{path}' is of IR version {model.ir_version}; the onnx installed knows 1 to {onnx.IR_VERSION}."
        )
    if not model.opset_import:
        raise CaptureError(f"'{path}' is no valid model: it imports no opset.")
    versions = Counter("" if each.domain == "ai.onnx" else each.domain for each in model.opset_import)
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), None)
    newest = onnx.defs.onnx_opset_version()
    twice = next((domain for domain, count in versions.items() if count > 1), None)
    if twice is not None:
        raise CaptureError(f"'{path}' is no valid model: it imports '{twice or 'ai.onnx'}' twice.")
    if opset is None and any(node.domain in ("", "ai.onnx") for node in _nodes(model)):
        raise CaptureError(f"'{path}' is no valid model: it imports no opset of ONNX's own operators.")
    if opset is not None and not 1 <= opset <= newest:
        raise CaptureError(f"'{path}' is of opset {opset}; the onnx installed knows 1 to {newest}.")


def _nodes_and_values(model: ModelProto, path: Path) -> None:
    for holder in (model, *model.functions):
        nodes = holder.graph.node if isinstance(holder, ModelProto) else holder.node
        version = next((each.version for each in holder.opset_import if each.domain in ("", "ai.onnx")), None)
        check_attributes(_deep(nodes), version, path)
    for graph in _graphs(model.graph):
        check_values([*graph.input, *graph.output, *graph.value_info], path)


def _names(graph: GraphProto, path: Path) -> None:
    """Every value has one maker. Weights may be listed among the inputs, and an input may be an output."""
    for what, names in (
        ("weights", [tensor.name for tensor in graph.initializer]),
        ("inputs", [value.name for value in graph.input]),
        ("outputs", [value.name for value in graph.output]),
        ("results", [name for node in graph.node for name in node.output if name]),
    ):
        name, count = max(Counter(names).items(), key=lambda pair: pair[1], default=("", 0))
        if count > 1:
            raise CaptureError(f"'{path}' is no valid model: two of its {what} are called '{name}'.")
        if "" in names:
            raise CaptureError(f"'{path}' is no valid model: one of its {what} has no name.")
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    made = next((name for node in graph.node for name in node.output if name in given), None)
    if made is not None:
        raise CaptureError(f"'{path}' is no valid model: '{made}' is given, and computed by a node too.")


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from _deep(model.graph.node)
    for function in model.functions:
        yield from _deep(function.node)


def _deep(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of graphs inside of them."""
    for node in nodes:
        yield node
        for inner in _inner(node):
            for graph in _graphs(inner):
                yield from graph.node


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for inner in _inner(node):
            yield from _graphs(inner)


def _inner(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs

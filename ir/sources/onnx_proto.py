"""An ONNX protobuf, and the faults of its tensors that a reader would stumble over, each in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import CaptureError

_TYPED = ("float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")
_WIDE = {ir.DataType.COMPLEX64: 2, ir.DataType.COMPLEX128: 2}  # numbers of a typed field for each element
_DENSE = 2**30  # bytes that a sparse tensor may take when it is made dense


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
    _versions(model, path)
    for inner in _graphs(graph):
        _densify(inner, path)
    for function in model.functions:
        for node in function.node:
            _dense_constant(node, path)
    for inner in _graphs(graph):
        _names(inner, path)
        for tensor in inner.initializer:
            _check(tensor, f"the weight '{tensor.name}'", path)
    for node in _nodes(model):
        for attribute in node.attribute:
            tensors = [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
            for tensor in tensors:
                _check(tensor, f"the tensor in {node.op_type} ({node.name or node.output[0]})", path)
    return model


def _versions(model: ModelProto, path: Path) -> None:
    if model.ir_version < 1:
        raise CaptureError(f"'{path}' is no valid model: it says no ir_version.")
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


def _check(tensor: TensorProto, what: str, path: Path) -> None:
    """A known type, sizes of zero or more, and its bytes once and in full."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise CaptureError(f"'{path}' is broken: {what} has no type that ONNX knows ({tensor.data_type}).")
    if any(size < 0 for size in tensor.dims):
        raise CaptureError(f"'{path}' is broken: {what} has a negative size: {list(tensor.dims)}.")
    if tensor.data_location == TensorProto.EXTERNAL:
        return  # ir/sources/external.py compares lengths
    fields = [name for name in _TYPED if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        fields.append("raw_data")
    if len(fields) > 1 and (len(fields) > 2 or tensor.raw_data):
        raise CaptureError(f"'{path}' is broken: {what} is stored twice: {' and '.join(fields)}.")
    count = prod(tensor.dims)
    if tensor.HasField("raw_data") and (tensor.raw_data or not fields):
        held, needed, unit = len(tensor.raw_data), -(-count * round(dtype.itemsize * 8) // 8), "bytes"
    else:
        held, unit = (len(getattr(tensor, fields[0])) if fields else 0), "numbers"
        each = 8 // round(dtype.itemsize * 8) if dtype.itemsize < 1 else 1
        needed = -(-count // each) * _WIDE.get(dtype, 1)
    if held != needed:
        raise CaptureError(
            f"'{path}' is broken: {what} of sizes {list(tensor.dims)} ({dtype.name}) needs {needed} {unit} "
            f"and holds {held}."
        )


def _densify(graph: GraphProto, path: Path) -> None:
    """Sparse weights become weights, and sparse constants constants."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, f"the weight '{sparse.values.name}'", path))
    del graph.sparse_initializer[:]
    for node in graph.node:
        _dense_constant(node, path)


def _dense_constant(node: NodeProto, path: Path) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            tensor = _dense(attribute.sparse_tensor, f"the constant '{node.output[0]}'", path)
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, what: str, path: Path) -> TensorProto:
    """Source: SparseTensorProto in onnx.proto: indices are flat positions, or one row of them a value."""
    _check(sparse.values, what, path)
    _check(sparse.indices, what, path)
    shape, dtype = tuple(sparse.dims), ir.DataType(sparse.values.data_type)
    if any(size < 0 for size in shape) or prod(shape) * max(1, dtype.itemsize) > _DENSE:
        raise CaptureError(f"'{path}': {what} is sparse, and {list(shape)} is too much to be made dense.")
    external = TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location)
    if external or dtype == ir.DataType.STRING or dtype.itemsize < 1:
        raise CaptureError(f"'{path}': {what} is sparse; store it as an ordinary tensor.")
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(prod(shape), values.dtype)
    try:
        flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), shape)
        if flat.shape != values.shape or (flat.size and not 0 <= flat.min() <= flat.max() < dense.size):
            raise ValueError("positions do not fit")
    except ValueError as error:
        raise CaptureError(f"'{path}' is broken: {what} is sparse, with positions outside of it.") from error
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(shape), sparse.values.name)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
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

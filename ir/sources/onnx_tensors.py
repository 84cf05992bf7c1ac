"""Tensors of an ONNX protobuf: of a known type, as long as they say, held once; sparse ones made dense."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from ..errors import CaptureError, short

_TYPED = ("float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")
_WIDE = {ir.DataType.COMPLEX64: 2, ir.DataType.COMPLEX128: 2}  # numbers of a typed field for each element
_DENSE = 2**30  # bytes that a sparse tensor may take when it is made dense


def check_tensor(tensor: TensorProto, what: str, path: Path) -> None:
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
        _check_entry(tensor, what, path)
        return  # ir/sources/external.py compares lengths
    fields = [name for name in _TYPED if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        fields.append("raw_data")
    if len(fields) > 1 and (len(fields) > 2 or tensor.raw_data):
        raise CaptureError(f"'{path}' is broken: {what} is stored twice: {' and '.join(fields)}.")
    if dtype == ir.DataType.STRING and fields not in ([], ["string_data"]):
        raise CaptureError(f"'{path}' is broken: {what} is of text, and holds {fields[0]}.")
    count = prod(tensor.dims)
    if dtype == ir.DataType.STRING:
        held, needed, unit = len(tensor.string_data), count, "texts"
    elif tensor.HasField("raw_data") and (tensor.raw_data or not fields):
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


def _check_entry(tensor: TensorProto, what: str, path: Path) -> None:
    """Where a tensor lies in another file: a name, and numbers."""
    entry = {each.key: each.value for each in tensor.external_data}
    if not entry.get("location"):
        raise CaptureError(f"'{path}' is broken: {what} lies in another file, and no entry says in which.")
    for key in ("offset", "length"):
        if key in entry and not re.fullmatch(r"\d{1,19}", entry[key]):
            raise CaptureError(
                f"'{path}' is broken: the {key} of {what} is no whole number from 0 on: {short(entry[key])}."
            )
    if tensor.data_type == TensorProto.STRING:
        raise CaptureError(f"'{path}' is broken: {what} is of text, which lies in no other file.")


def densify(graph: GraphProto, path: Path) -> None:
    """Sparse weights become weights, and sparse constants constants."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, f"the weight '{sparse.values.name}'", path))
    del graph.sparse_initializer[:]
    for node in graph.node:
        dense_constant(node, path)


def dense_constant(node: NodeProto, path: Path) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            tensor = _dense(attribute.sparse_tensor, f"the constant '{node.output[0]}'", path)
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, what: str, path: Path) -> TensorProto:
    """Source: SparseTensorProto in onnx.proto: indices are flat positions, or one row of them a value."""
    check_tensor(sparse.values, what, path)
    check_tensor(sparse.indices, what, path)
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

"""Weights of an ONNX model: files beside it all there, whole and nowhere else, and every number finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx_ir as ir

from ..errors import CaptureError
from ..host.residency import release

# What these multiply is a weight, where infinity is a fault; elsewhere it may be a mask.
_MULTIPLY = {"MatMul", "Gemm", "Conv", "Mul", "LayerNormalization", "RMSNormalization"}


def check_finite(model: ir.Model, path: Path) -> None:
    """Reads every weight and constant, those of subgraphs included, one at a time.

    Raises:
        CaptureError: one holds NaN, or infinity where it multiplies.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                _check(value.const_value, f"the weight '{name}'", [value], path)
        for node in graph:
            for tensor in _held(node):
                _check(tensor, f"the constant in {node.op_type} ({node.name or node.outputs[0].name})",
                       node.outputs if node.op_type == "Constant" else [], path)  # fmt: skip
    release()


def _held(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.value
        elif attribute.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
            yield ir.Tensor(np.atleast_1d(np.asarray(attribute.value, np.float32)))


def _check(tensor: ir.TensorProtocol, what: str, values: Sequence[ir.Value], path: Path) -> None:
    if not tensor.dtype.is_floating_point() or not tensor.size:
        return
    array = tensor.numpy()
    with np.errstate(invalid="ignore"):
        low, high = float(array.min()), float(array.max())  # NaN in either if there is one
    if isinstance(tensor, ir.ExternalTensor):
        del array
        tensor.release()
    if np.isnan(low) or np.isnan(high):
        raise CaptureError(f"'{path}' is broken: {what} holds NaN.")
    multiplies = any(use.node.op_type in _MULTIPLY for value in values for use in value.uses())
    if multiplies and not (np.isfinite(low) and np.isfinite(high)):
        raise CaptureError(f"'{path}' is broken: {what} holds infinity.")


_SMALL = 1024  # bytes: shapes, scalars and the like, which whatever runs the graph wants inside it


def check_external(model: ir.Model, path: Path) -> None:
    """Checks every external tensor; small ones are read in, the others stay where they are.

    Raises:
        CaptureError: a file is missing or too short, lies outside of the model's directory, or a
            weight is not as long as it says.
    """
    for holder, tensor in _external(model):
        location = str(tensor.location)
        where = PurePosixPath(location.replace("\\", "/"))
        if where.is_absolute() or PureWindowsPath(location).drive or ".." in where.parts:
            raise CaptureError(f"'{path}' keeps weights at '{location}', outside of its directory: not read.")
        file = path.parent / location
        if not file.is_file():
            raise CaptureError(f"'{path}' keeps weights in '{location}', which is not there.")
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise CaptureError(f"'{file}' is a link out of the model's directory: not followed.")
        if tensor.length is not None and tensor.length != tensor.nbytes:
            raise CaptureError(
                f"'{path}' is broken: the weight '{tensor.name}' needs {tensor.nbytes} bytes, and its "
                f"entry for '{location}' says {tensor.length}."
            )
        if (tensor.offset or 0) + tensor.nbytes > file.stat().st_size:
            raise CaptureError(f"'{file}' is truncated: it ends before the weight '{tensor.name}'.")
        if isinstance(holder, ir.Value) and tensor.nbytes <= _SMALL:
            holder.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def _external(model: ir.Model) -> Iterator[tuple[ir.Value | ir.Attr, ir.ExternalTensor]]:
    graphs = {model.graph: None}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.graph is not None:
            graphs[node.graph] = None
        for attribute in node.attributes.values():
            if isinstance(attribute, ir.Attr) and isinstance(attribute.value, ir.ExternalTensor):
                yield attribute, attribute.value
    for graph in graphs:
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value, value.const_value

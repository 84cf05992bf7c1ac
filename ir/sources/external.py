"""Weights that an ONNX model keeps in files beside it: all there, whole, and not somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx_ir as ir

from ..errors import CaptureError

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

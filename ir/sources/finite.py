"""Weights that no model can compute with: looked for once, when an ONNX model comes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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

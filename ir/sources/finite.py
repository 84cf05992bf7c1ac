"""Weights that no model can compute with: looked for once, when an ONNX model comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..errors import CaptureError
from ..residency import release

# What these multiply is a weight, where infinity is a fault; elsewhere it may be a mask.
_MULTIPLY = {"MatMul", "Gemm", "Conv", "Mul", "LayerNormalization", "RMSNormalization"}


def check_finite(model: ir.Model, path: Path) -> None:
    """Reads every weight, one at a time.

    Raises:
        CaptureError: a weight holds NaN, or infinity where it multiplies.
    """
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point() or not tensor.size:
            continue
        array = tensor.numpy()
        with np.errstate(invalid="ignore"):
            low, high = float(array.min()), float(array.max())  # NaN in either if there is one
        if isinstance(tensor, ir.ExternalTensor):
            del array
            tensor.release()
        if np.isnan(low) or np.isnan(high):
            raise CaptureError(f"'{path}' is broken: the weight '{name}' holds NaN.")
        multiplies = any(use.node.op_type in _MULTIPLY for use in value.uses())
        if multiplies and not (np.isfinite(low) and np.isfinite(high)):
            raise CaptureError(f"'{path}' is broken: the weight '{name}' holds infinity.")
    release()

"""Old opsets raised to one that the passes write."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx.shape_inference import InferenceError
from onnx.version_converter import ConvertError, convert_version

from ..errors import CaptureError
from ..onnx.opset import OLDEST, opset
from .apart import put_back, set_apart
from .standin import through_proto

TARGET = 20


def raise_opset(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset 20 if it is of one before 18, or before 20 with operators of ONNX Runtime, which are
    written out in opset 20; itself otherwise. Weights are not copied.

    Raises:
        CaptureError: onnx's version converter does not know how.
    """
    version = opset(model)
    runtimes = any(n.domain == "com.microsoft" for n in ir.traversal.RecursiveGraphIterator(model.graph))
    if version >= (TARGET if runtimes else OLDEST):
        return model
    set_apart(model, version)
    try:
        raised = through_proto(model, lambda proto: convert_version(proto, TARGET))
        put_back(raised)
    except (ConvertError, InferenceError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(
            f"'{path}' is of opset {version}, and cannot be raised to {TARGET}: {reason}"
        ) from error
    return raised

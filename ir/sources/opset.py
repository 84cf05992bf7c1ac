"""Old opsets raised to one that the passes write."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx.version_converter import ConvertError, convert_version

from ..errors import CaptureError

OLDEST, TARGET = 18, 20  # from 18 on, reductions, Split and Squeeze take their axes as inputs
_SMALL = 1000  # bytes: what the converter may want to look at (axes, shapes, scales)


def raise_opset(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset 20 if it is of one before 18; itself otherwise. Weights are not copied.

    Raises:
        CaptureError: onnx's version converter does not know how.
    """
    opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
    if opset >= OLDEST:
        return model
    weights = {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes > _SMALL:  # a stand-in input while the model is a protobuf
            weights[value.name] = tensor
            value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
            del model.graph.initializers[value.name or ""]
            if value not in model.graph.inputs:
                model.graph.inputs.append(value)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor.numpy().copy(), name=tensor.name)
    try:
        raised = ir.from_proto(convert_version(ir.to_proto(model), TARGET))
    except (ConvertError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(
            f"'{path}' is of opset {opset}, and cannot be raised to {TARGET}: {reason}"
        ) from error
    for value in [value for value in raised.graph.inputs if value.name in weights]:
        raised.graph.inputs.remove(value)
        value.const_value = weights[value.name]
        raised.graph.register_initializer(value)
    return raised

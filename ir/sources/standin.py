"""A model without its weights, for what copies a whole protobuf: large ones stand aside as inputs."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx import ModelProto

_SMALL = 1000  # bytes: what a converter may want to look at (axes, shapes, scales)


def through_proto(model: ir.Model, convert: Callable[[ModelProto], ModelProto]) -> ir.Model:
    """`convert` of the model, which this leaves changed; large weights of the main graph are not copied."""
    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes > _SMALL:
            weights[name] = tensor
            value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
            del model.graph.initializers[name]
            if value not in model.graph.inputs:
                model.graph.inputs.append(value)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor.numpy().copy(), name=tensor.name)
    converted = ir.from_proto(convert(ir.to_proto(model)))
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        converted.graph.inputs.remove(value)
        value.const_value = weights[value.name or ""]
        converted.graph.register_initializer(value)
    return converted

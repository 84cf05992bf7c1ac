"""What a node of an ONNX graph asks for: equal for nodes that compute the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

COMMUTATIVE = {"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min", "Sum", "Mean"}
RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


def request(node: Any) -> Hashable | None:
    """Equal for nodes that compute the same; None for those that may not be merged."""
    if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.inputs) > 2):
        return None
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        value = _hashable(attribute)
        if value is None:
            return None
        attributes.append((name, value))
    operands = [id(value) for value in node.inputs]
    if node.op_type in COMMUTATIVE and node.domain == "":
        operands.sort()
    # An output nobody asked for is a different request: LayerNormalization with and without its mean.
    present = tuple(bool(value.name) for value in node.outputs)
    return (node.op_identifier(), tuple(operands), tuple(attributes), present)


def _hashable(attribute: Any) -> Hashable | None:
    kind = attribute.type.name
    if attribute.is_ref() or kind in ("GRAPH", "GRAPHS", "TENSORS", "SPARSE_TENSOR", "SPARSE_TENSORS"):
        return None
    if kind == "TENSOR":
        tensor = attribute.value
        return (kind, tensor.dtype, tuple(tensor.shape), bytes(contents(tensor)))
    return (kind, repr(attribute.value))  # repr keeps 0.0 and -0.0, 1 and 1.0 apart


def contents(tensor: Any) -> Any:
    """A tensor's elements, comparable."""
    return tuple(tensor.string_data()) if tensor.dtype.is_string() else memoryview(tensor.tobytes())

"""The int8 products of a quantized graph, in every spelling: what enters them, and their integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

MICROSOFT = "com.microsoft"
# Positions of (activation, weight, weight's scale) among an operator's inputs; None: it has no scale.
_OPERANDS: dict[tuple[str, str], tuple[int, int, int | None]] = {
    ("", "MatMulInteger"): (0, 1, None),
    ("", "QLinearMatMul"): (0, 3, 4),
    (MICROSOFT, "MatMulIntegerToFloat"): (0, 1, 3),
    (MICROSOFT, "QGemm"): (0, 3, 4),
    (MICROSOFT, "QAttention"): (0, 1, 4),
}
_FLOAT = {("", "MatMul"), ("", "Gemm")}  # an integer product where both operands come out of DequantizeLinear


@dataclass(frozen=True)
class IntegerProduct:
    """One product of 8-bit integers.

    output: the value it gives. activation: the integers that enter it, (..., in). quantizer: the node that
    made them from floats, None where they come from elsewhere. weight: constant integers, (in, out) or, if
    transposed, (out, in). scale: of the weight, None where it is applied further on.
    """

    node: ir.Node
    activation: ir.Value
    quantizer: ir.Node | None
    weight: ir.Value
    scale: ir.Value | None
    transposed: bool = False

    @property
    def output(self) -> str:
        return str(self.node.outputs[0].name)

    def integers(self) -> np.ndarray:
        """The weight as (in, out)."""
        tensor = ir.convenience.get_const_tensor(self.weight)
        assert tensor is not None
        return tensor.numpy().T if self.transposed else tensor.numpy()


def integer_products(model: ir.Model) -> Iterator[IntegerProduct]:
    """Those of the main graph, in order. Products of two activations (scores) are not among them."""
    for node in model.graph:
        kind = (node.domain, node.op_type)
        if kind in _OPERANDS:
            x, w, s = _OPERANDS[kind]
            activation, weight = node.inputs[x], node.inputs[w]
            scale = None if s is None else node.inputs[s]
        elif kind in _FLOAT:
            pair = [_dequantized(value) for value in node.inputs[:2]]
            if pair[0] is None or pair[1] is None:
                continue
            (activation, _), (weight, scale) = pair  # type: ignore[misc]
        else:
            continue
        if activation is None or weight is None or ir.convenience.get_const_tensor(weight) is None:
            continue
        transposed = bool(node.attributes.get_int("transB", 0))
        yield IntegerProduct(node, activation, _quantizer(activation), weight, scale, transposed)


def _dequantized(value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None] | None:
    """(integers, scale) behind a DequantizeLinear."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return node.inputs[0], node.inputs[1]


def _quantizer(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    return node if node is not None and node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") else None

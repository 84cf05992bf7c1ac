"""ONNX operators on 8-bit integers in Relax.

An integer product is matmul(astype(x) - zero, astype(w) - zero) in int32; weights keep their own type, so
that a recogniser finds the bytes.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from .node import Node
from .rewriter import array, shape

Quantized = tuple[Any, Any, Any]
"""Integers, scale, zero point or None."""


def dynamic_quantize_linear(node: Node) -> Any:
    """(integers, scale, zero point) of a whole tensor. TVM's divides 0 by 0 where every element is 0."""
    x = node.inputs[0]
    zero, last = node.like(0.0, x), node.like(255.0, x)
    high = node.emit(relax.op.maximum(node.emit(relax.op.max(x)), zero))
    low = node.emit(relax.op.minimum(node.emit(relax.op.min(x)), zero))
    range_ = node.emit(relax.op.subtract(high, low))
    empty = node.emit(relax.op.equal(range_, zero))
    range_ = node.emit(relax.op.where(empty, last, range_))  # a scale of 1
    scale = node.emit(relax.op.divide(range_, last))
    below = node.emit(relax.op.negative(node.emit(relax.op.divide(low, scale))))
    rounded = node.emit(relax.op.round(node.emit(relax.op.clip(below, 0, 255))))
    point = node.emit(relax.op.astype(rounded, "uint8"))
    integers = node.emit(relax.op.quantize(x, scale, point, axis=0, out_dtype="uint8"))
    return relax.Tuple([integers, scale, point])


def matmul_integer(node: Node) -> Any:
    """MatMulInteger (opset 10): int32."""
    x, weight, x_zero, w_zero = node.operands(4)
    return _product(node, x, x_zero, weight, w_zero)


def matmul_integer_to_float(node: Node) -> Any:
    """com.microsoft MatMulIntegerToFloat: the product rescaled, with a bias."""
    x, weight, x_scale, w_scale, x_zero, w_zero, bias = node.operands(7)
    product = rescaled_product(node, (x, x_scale, x_zero), (weight, w_scale, w_zero))
    return node.sum([product, bias])


def qlinear_matmul(node: Node) -> Any:
    """QLinearMatMul (opset 10): the product quantized again."""
    x, x_scale, x_zero, weight, w_scale, w_zero, scale, zero = node.operands(8)
    product = rescaled_product(node, (x, x_scale, x_zero), (weight, w_scale, w_zero))
    return relax.op.quantize(product, scale, zero, axis=-1, out_dtype=str(zero.ty.dtype))


def rescaled_product(node: Node, x: Quantized, weight: Quantized) -> Any:
    """(x - zero) (w - zero) times both scales, as floats; the weight's scale may be one for each column."""
    product = node.emit(_product(node, x[0], x[2], weight[0], weight[2]))
    floats = node.emit(relax.op.astype(product, str(x[1].ty.dtype)))
    scale = node.emit(relax.op.multiply(x[1], weight[1]))
    return node.emit(relax.op.multiply(floats, scale))


def _product(node: Node, x: Any, x_zero: Any, weight: Any, w_zero: Any) -> Any:
    rows = _centred(node, x, x_zero, -1)
    return relax.op.matmul(rows, _centred(node, weight, w_zero, -2), out_dtype="int32")


def _centred(node: Node, integers: Any, zero: Any, axis: int) -> Any:
    """Minus the zero point: one, or one for each row (axis -1) or column (axis -2)."""
    wide = node.emit(relax.op.astype(integers, "int32"))
    known = None if zero is None else array(zero)
    if zero is None or (known is not None and not known.any()):
        return wide
    point = node.emit(relax.op.astype(zero, "int32"))
    if len(shape(zero)) == 1 and shape(zero)[0] > 1:
        point = node.emit(relax.op.expand_dims(point, axis))
    return node.emit(relax.op.subtract(wide, point))

"""A product in standard operators: float, between DequantizeLinear nodes (ONNX, opset 13).

ONNX Runtime fuses DequantizeLinear, DequantizeLinear, MatMul into MatMulIntegerToFloat, and with a third
DequantizeLinear for an int32 bias it fuses Gemm into QGemm, which takes two axes and wants every zero point
written down. Before that, though, it makes a float Gemm of MatMul and Add where sizes are known, and then
nothing fuses: the Add is written as a Sum, which it leaves alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor
from ..codes.affine import Affine
from .sites import Product

_LARGEST = 2**30  # of a bias in the product's steps: the sums need the other half of 32 bits
_LOST = 1e-3  # of the largest bias, to rounding: what loses more is added in float


def product(
    editor: Editor, product: Product, x: ir.Value, weight: tuple[ir.Value, ir.Value], mapping: Affine
) -> None:
    """Rewrite a product in place.

    Args:
        x: its activation, dequantized.
        weight: int8 (in, out) and its scales (out,).
        mapping: of the activation.
    """
    node, root = product.node, product.root
    integers, scales = weight
    zeros = _zeros(editor, integers, scales, np.int8)
    name = str(root.name)
    w = dequantize(editor, integers, scales, zeros, node, f"{name}.weight", axis=1)
    bias = _bias(editor, product, scales, mapping)
    flat = node.op_type == "Gemm" or (x.shape is not None and len(x.shape) == 2)
    if bias is not None and flat:
        new = editor.node("Gemm", [x, w, bias], f"{name}.product", before=root.producer(), like=root)
        editor.replace(root, new.outputs[0])
        return
    old = node.outputs[0]
    new = editor.node("MatMul", [x, w], f"{old.name}.product", before=node, like=old)
    result = new.outputs[0]
    if node.op_type == "Gemm" and product.bias is not None:
        result = editor.node("Sum", [result, product.bias], f"{name}.sum", before=node, like=root).outputs[0]
    for user, _ in old.uses():
        if user.op_type == "Add":
            user.op_type = "Sum"
    editor.replace(old, result)


def dequantize(
    editor: Editor,
    integers: ir.Value,
    scale: ir.Value,
    zero: ir.Value,
    before: ir.Node,
    name: str,
    axis: int | None = None,
) -> ir.Value:
    """The float value of integers with one scale, or with one for each index of an axis."""
    attrs = {} if axis is None else {"axis": axis}
    inputs = [integers, scale, zero]
    result = editor.node("DequantizeLinear", inputs, name, before=before, attrs=attrs).outputs[0]
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), integers.shape
    return result


def _bias(editor: Editor, product: Product, scales: ir.Value, mapping: Affine) -> ir.Value | None:
    """The bias in the steps of the product's sums, dequantized; None where it must be added apart."""
    tensor = None if product.bias is None else ir.convenience.get_const_tensor(product.bias)
    assert scales.const_value is not None
    steps = scales.const_value.numpy() * mapping.scale
    if tensor is None or tensor.size != steps.size or not (steps >= np.finfo(np.float32).tiny).all():
        return None
    exact = tensor.numpy().reshape(-1).astype(np.float64)
    integers = np.rint(exact / steps)
    lost = np.abs(integers * steps - exact).max()
    if np.abs(integers).max() > _LARGEST or lost > _LOST * np.abs(exact).max():
        return None
    name, before = f"{product.root.name}.bias", product.root.producer()
    assert before is not None
    stored = editor.initializer(integers.astype(np.int32), f"{name}.int32")
    scale = editor.initializer(steps.astype(np.float32), f"{name}.scale")
    return dequantize(editor, stored, scale, _zeros(editor, stored, scale, np.int32), before, name, axis=0)


def _zeros(editor: Editor, integers: ir.Value, scales: ir.Value, dtype: type) -> ir.Value:
    """Zero points, one a scale; one initializer for all that are alike."""
    assert scales.const_value is not None
    name = f"quantize.{np.dtype(dtype).name}_zeros_{scales.const_value.size}"
    found = editor.graph.initializers.get(name)
    return found if found is not None else editor.initializer(np.zeros(scales.const_value.size, dtype), name)

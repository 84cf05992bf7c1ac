"""Fractional zeros at the speed of whole ones.

MatMulNBits takes zeros in float too, but then ONNX Runtime (1.31, CPU) decodes the whole weight at each call.
A zero is the same for a group of inputs, so

    sum_i s (q_i - z) x_i = sum_i s (q_i - h) x_i + s (h - z) sum_i x_i

and with h = 2^(bits - 1), the kernel's own zero, the first part is its fastest form. The second is a product
with a matrix that has one input to each group.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .decode import Decoder
from .packed import Packed


def corrected(
    decoder: Decoder, packed: Packed, x: ir.Value, y: ir.Value, before: ir.Node | None, dtype: ir.DataType
) -> ir.Value:
    """y plus what its zeros, h for all groups, left out.

    Args:
        packed: with fractional zeros.
        x: (..., columns). y: (..., rows), what MatMulNBits gives without zeros.
    """
    editor, name = decoder.editor, f"{y.name}.zeros"

    def node(operator: str, inputs: list[ir.Value], **attrs: object) -> ir.Value:
        made = editor.node(operator, inputs, f"{name}.{operator.lower()}", before=before, attrs=attrs)
        return made.outputs[0]

    groups, (_, columns) = packed.groups, packed.shape
    if x.shape is None or groups * packed.group > columns:
        sums = node("MatMul", [x, _members(decoder, columns, packed.group, dtype)])
    else:
        target = [0] * (len(x.shape) - 1) + [groups, packed.group]
        shape = decoder.constant(f"shape.{'.'.join(map(str, target))}", np.array(target, np.int64))
        parts = node("Reshape", [x, shape])
        if editor.graph.opset_imports.get("", 1) < 13:  # axes were an attribute
            sums = node("ReduceSum", [parts], axes=[-1], keepdims=0)
        else:
            last = decoder.constant("index.-1", np.array([-1], np.int64))
            sums = node("ReduceSum", [parts, last], keepdims=0)
    part = node("MatMul", [sums, _offsets(decoder, packed, name, dtype)])
    return node("Add", [y, part])


def _members(decoder: Decoder, columns: int, group: int, dtype: ir.DataType) -> ir.Value:
    """(columns, groups), 1 where a column is in a group."""
    ones = np.equal.outer(np.arange(columns) // group, np.arange(-(-columns // group)))
    return decoder.constant(f"members.{columns}.{group}.{dtype.name.lower()}", ones.astype(dtype.numpy()))


def _offsets(decoder: Decoder, packed: Packed, name: str, dtype: ir.DataType) -> ir.Value:
    """s (h - z), (groups, rows): computed once, as the model is loaded."""
    middle = decoder.constant(f"middle.{packed.bits}", np.array(2.0 ** (packed.bits - 1), np.float32))
    scale, zero = (decoder.cast(value, ir.DataType.FLOAT) for value in (packed.scale, packed.zero[0]))
    offset = decoder.early("Sub", [middle, zero], f"{name}.sub")
    offset = decoder.early("Mul", [offset, scale], f"{name}.mul")
    offset = decoder.early("Transpose", [offset], f"{name}.transpose", {"perm": [1, 0]})
    offset.type = ir.TensorType(ir.DataType.FLOAT)
    return offset if dtype == ir.DataType.FLOAT else decoder.cast(offset, dtype)

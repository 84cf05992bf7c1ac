"""Integer weights behind DequantizeLinear: stored as they are multiplied, in no more bits than they need."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor
from ...quantize.codes.packing import pack, planes, table

_WORTH = 256  # weights: the table that unpacks them has as many bytes


def store_codes(model: ir.Model) -> None:
    """Turns Transpose(DequantizeLinear(codes)) into DequantizeLinear(turned codes), so that runtimes find the
    product's integers, and packs codes of four bits and fewer.

    Packed codes are looked up in a table (packing.py): Gather and Reshape of constants, which ONNX Runtime
    computes once, as it loads the model.
    """
    editor = Editor(model)
    for node in [n for n in model.graph if n.op_type == "DequantizeLinear"]:
        codes = node.inputs[0]
        if codes is None or codes.const_value is None or len(codes.uses()) > 1:
            continue
        _turn(model, node, codes)
        _pack(editor, node, codes)


def _turn(model: ir.Model, node: ir.Node, codes: ir.Value) -> None:
    readers = [use.node for use in node.outputs[0].uses()]
    tensor = codes.const_value
    assert tensor is not None
    if len(tensor.shape) != 2 or any(n.op_type != "Transpose" for n in readers):
        return
    if any(tuple(n.attributes.get_ints("perm", (1, 0))) != (1, 0) for n in readers):
        return
    _store(codes, np.ascontiguousarray(tensor.numpy().T))
    node.outputs[0].shape = codes.shape
    if "axis" in node.attributes:
        node.attributes["axis"] = ir.AttrInt64("axis", 1 - node.attributes["axis"].as_int() % 2)
    for reader in readers:
        reader.outputs[0].replace_all_uses_with(node.outputs[0])
        model.graph.remove(reader, safe=True)


def _store(codes: ir.Value, array: np.ndarray) -> None:
    codes.const_value = ir.Tensor(array, name=codes.name)
    codes.shape, codes.type = codes.const_value.shape, ir.TensorType(codes.const_value.dtype)


def _pack(editor: Editor, node: ir.Node, codes: ir.Value) -> None:
    tensor = codes.const_value
    assert tensor is not None
    array = tensor.numpy()
    if array.size < _WORTH:
        return
    low, high = int(array.min()), int(array.max())
    bits = next((b for b in (1, 2, 3, 4) if high - low < 2**b), 8)
    if bits == 8:
        return
    unsigned = (array.astype(np.int16) - low).astype(np.uint8).reshape(array.shape[0], -1)
    name = str(codes.name)
    parts, shift = [], 0
    for width, plane in zip(planes(bits), pack(unsigned, bits), strict=True):
        values = (np.arange(2**width) << shift) + (low if shift == 0 else 0)
        # No runtime adds bytes, so two planes are added in 32 bits.
        kind = array.dtype if len(planes(bits)) == 1 else np.dtype(np.int32)
        wide = _looked_up(editor, node, f"{name}.{width}", plane, table(width, values.astype(kind)))
        parts.append(_cut(editor, node, wide, plane.shape[1] * 8 // width, unsigned.shape[1]))
        shift += width
    found = parts[0]
    if len(parts) > 1:
        added = editor.node("Add", parts, f"{name}.sum", before=node).outputs[0]
        attrs = {"to": int(tensor.dtype)}
        found = editor.node("Cast", [added], f"{name}.byte", before=node, attrs=attrs).outputs[0]
    if array.ndim != 2:
        shape = editor.initializer(np.array(array.shape), f"{name}.shape")
        found = editor.node("Reshape", [found, shape], f"{name}.shaped", before=node).outputs[0]
    found.shape, found.type = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
    node.replace_input_with(0, found)
    del editor.graph.initializers[name]


def _looked_up(editor: Editor, node: ir.Node, name: str, plane: np.ndarray, values: np.ndarray) -> ir.Value:
    """What the bytes of a plane stand for, (rows, columns and spare ones)."""
    packed = editor.initializer(plane, f"{name}.packed")
    attrs = {"to": int(ir.DataType.INT32)}
    index = editor.node("Cast", [packed], f"{name}.index", before=node, attrs=attrs).outputs[0]
    stands_for = editor.initializer(values, f"{name}.table")
    found = editor.node("Gather", [stands_for, index], f"{name}.gathered", before=node).outputs[0]
    shape = editor.initializer(np.array([plane.shape[0], -1]), f"{name}.rows")
    return editor.node("Reshape", [found, shape], f"{name}.codes", before=node).outputs[0]


def _cut(editor: Editor, node: ir.Node, wide: ir.Value, held: int, columns: int) -> ir.Value:
    """The first columns of what was held."""
    if held == columns:
        return wide
    constants = [("from", 0), ("to", columns), ("axis", 1)]
    inputs = [editor.initializer(np.array([number]), f"{wide.name}.{name}") for name, number in constants]
    return editor.node("Slice", [wide, *inputs], f"{wide.name}.cut", before=node).outputs[0]

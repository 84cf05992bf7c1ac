"""ONNX Runtime's own kernels for packed weights, and whether the installed version has them.

com.microsoft MatMulNBits multiplies by codes of 2, 4 or 8 bits, GatherBlockQuantized decodes rows of a table
of them. Which widths a version knows is asked of it, by running the smallest graph.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir

from ....ir.onnx.execute import execute_onnx
from ....ir.onnx.graph import Editor
from .decode import FLOAT, Decoder
from .fractions import corrected
from .packed import Packed, store
from .rounding import Scheme, round_to_nearest

MICROSOFT = "com.microsoft"
_OPSET = 17
# accuracy_level of MatMulNBits: activations stay as they are, or are rounded to int8 in runs of one group.
LEVELS = {"float": 1, "int8": 4}


def product(
    decoder: Decoder,
    packed: Packed,
    x: ir.Value,
    before: ir.Node | None,
    name: str,
    level: str,
    dtype: ir.DataType,
) -> ir.Value:
    """x W^T by MatMulNBits.

    Args:
        x: (..., columns), of `dtype`.
        level: what the kernel computes in, a key of LEVELS.
    """
    rows, columns = packed.shape
    codes = packed.codes[0]
    if codes.shape is not None and len(codes.shape) == 2:  # stored flat, for lookups
        shape = decoder.constant(
            f"shape.{rows}.{packed.groups}", np.array([rows, packed.groups, -1], np.int64)
        )
        codes = decoder.early("Reshape", [codes, shape], f"{name}.codes")
    inputs = [x, codes, decoder.cast(packed.scale, dtype), *([] if packed.fractions else packed.zero)]
    attrs = {
        "K": columns,
        "N": rows,
        "bits": packed.bits,
        "block_size": packed.group,
        "accuracy_level": LEVELS[level],
    }
    node = decoder.editor.node("MatMulNBits", inputs, name, before=before, attrs=attrs, domain=MICROSOFT)
    y = node.outputs[0]
    return corrected(decoder, packed, x, y, before, dtype) if packed.fractions else y


def lookup(
    decoder: Decoder, packed: Packed, ids: ir.Value, before: ir.Node | None, name: str, dtype: ir.DataType
) -> ir.Value:
    """Rows of a flat table by GatherBlockQuantized."""
    attrs = {"gather_axis": 0, "quantize_axis": 1, "block_size": packed.group, "bits": packed.bits}
    inputs = [packed.codes[0], ids, decoder.cast(packed.scale, dtype), packed.zero[0]]
    node = decoder.editor.node(
        "GatherBlockQuantized", inputs, name, before=before, attrs=attrs, domain=MICROSOFT
    )
    return node.outputs[0]


@cache
def multiplies(bits: int, group: int) -> bool:
    """Whether MatMulNBits is there for so many bits and inputs to a group, and is right."""
    return _right("product", bits, group)


@cache
def looks_up(bits: int, group: int) -> bool:
    """Whether GatherBlockQuantized is there for so many bits and columns to a group, and is right."""
    return _right("lookup", bits, group)


def _right(kind: str, bits: int, group: int) -> bool:
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    coded = round_to_nearest(
        np.linspace(-1, 1, 32 * group, dtype=np.float32).reshape(16, -1), Scheme(bits, group)
    )
    what = ir.Value(
        name="x",
        shape=ir.Shape([2, 2 * group] if kind == "product" else [2]),
        type=ir.TensorType(FLOAT if kind == "product" else ir.DataType.INT64),
    )
    graph = ir.Graph([what], [], nodes=[], opset_imports={"": _OPSET}, name="question")
    decoder = Decoder(Editor(ir.Model(graph, ir_version=9)))
    packed = store(decoder, coded, "w", flat=kind == "lookup")
    if kind == "product":
        x = np.linspace(-1, 1, 4 * group, dtype=np.float32).reshape(2, -1)
        y, right = product(decoder, packed, what, None, "y", "float", FLOAT), x @ coded.floats().T
    else:
        x = np.array([3, 0])
        y, right = lookup(decoder, packed, what, None, "y", FLOAT), coded.floats()[x]
    y.dtype = FLOAT
    graph.outputs.append(y)
    try:
        found = execute_onnx(decoder.editor.model, ["y"], [{"x": x}], threads=1)[0]["y"]
    except (ort.Fail, ort.NotImplemented, ort.InvalidGraph, ort.InvalidArgument, ort.RuntimeException):
        return False
    return bool(np.allclose(found, right, rtol=0, atol=1e-3))

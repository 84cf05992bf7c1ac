"""store-half: weights in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...ir.onnx.graph import Editor
from ...ir.onnx.lazy import rounded
from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result
from .codes.decode import Decoder
from .codes.stored import StoredWeight, find

_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class StoreHalf(Pass):
    """Store the weights of products and embedding tables in 16 bits: half of the bytes on disk.

            y = MatMul(x, w)                    w: f32
        ->  y = MatMul(x, Cast(w))              w: f16

    Each is cast back where it is used, rows of a table after they were looked up; ONNX Runtime casts whole
    weights once, when it loads the model, so that products run in float32 as fast as before. Its CPU kernels
    for x86 have no product of their own in 16 bits. Scales of norms and biases stay in float32.

    type: "float16" (IEEE 754 binary16, a relative error of 2^-11, weights up to 65,504) or "bfloat16" (the
        upper half of a float32, 2^-8, any weight).
    """

    name: ClassVar[str] = "store-half"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"type": ("float16", "bfloat16")}

    type: Literal["float16", "bfloat16"] = "float16"

    def run(self, program: Program, context: Context) -> Result:
        weights, misses = find(program)
        editor = Editor(program.graph)
        decoder = Decoder(editor)
        count, notes = 0, list(misses)
        for stored in weights:
            if stored.tensor.dtype != ir.DataType.FLOAT:
                continue
            if self.type == "float16" and (reason := _unfit(stored)):
                notes.append(reason)
            elif context.allow(f"store {stored.name} in {self.type}"):
                _store(editor, decoder, stored, _TYPES[self.type])
                count += 1
        editor.prune()
        return Result(
            program, count > 0, {f"weights in {self.type}": f"{count} of {len(weights)}"}, tuple(notes)
        )


def _unfit(stored: StoredWeight) -> str:
    array = stored.tensor.numpy()
    largest = max(float(np.max(array, initial=0)), -float(np.min(array, initial=0)))
    if largest <= LARGEST:  # false for NaN too
        return ""
    return (
        f"{stored.name}: stays in float32, it has a weight of {largest:.3g} and float16 ends at {LARGEST:g}"
    )


def _store(editor: Editor, decoder: Decoder, stored: StoredWeight, dtype: ir.DataType) -> None:
    tensor, old = stored.tensor, stored.value
    name = f"{stored.name}.{dtype.name.lower()}"
    half = editor.initializer(rounded(tensor, dtype), name)
    for use in stored.uses:
        if use.kind != "lookup":
            continue
        node, rows = use.node, use.node.outputs[0]
        looked = editor.node("Gather", [half, use.other], f"{rows.name}.half", before=node, attrs={"axis": 0})
        looked.outputs[0].type, looked.outputs[0].shape = ir.TensorType(dtype), rows.shape
        cast = editor.node(
            "Cast", looked.outputs, f"{rows.name}.float", before=node, attrs={"to": int(ir.DataType.FLOAT)}
        )
        cast.outputs[0].type, cast.outputs[0].shape = rows.type, rows.shape
        editor.replace(rows, cast.outputs[0])
    if any(use.kind != "lookup" for use in stored.uses) or old.is_graph_output():
        whole = decoder.cast(half, ir.DataType.FLOAT)
        whole.type, whole.shape = old.type, old.shape
        editor.replace(old, whole)

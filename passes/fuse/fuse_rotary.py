"""fuse-rotary: rotary position embedding as one operator on heads that still lie side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.blocks import recognise
from ...ir.blocks.base import Attention
from ...ir.blocks.rotary import OPERATORS
from ...ir.onnx.graph import Editor
from ...ir.onnx.opset import cannot_raise, raise_opset
from ...ir.program import Program
from ...ir.values import Value
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive, misses
from .parts.operands import Operand, back, joined, parse
from .parts.rotation import Rotation, rotation

_OPSET = 23  # the first with a RotaryEmbedding of its own


@dataclass(frozen=True)
class FuseRotary(Pass):
    """Replace the rotation of queries and keys by RotaryEmbedding (opset 23).

            a, b = Split(q); y = Add(Mul(q, cos), Mul(Concat(Neg(b), a), sin))
        ->  y = RotaryEmbedding(q, cos, sin)

    The operator takes the model's own cosines and sines, computed in the graph from the positions as before,
    so any scaling of frequencies and any length stay as they are. It reads (batch, length,
    heads * head_dim): a fuse-attention that follows needs no transpose.
    """

    name: ClassVar[str] = "fuse-rotary"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(view(program))
        turned = [attention for attention in blocks.attention if attention.rotary]
        stuck = cannot_raise(program.graph, _OPSET)
        writer = _Writer(program.graph)
        notes = misses(blocks.missed, "attention")
        sides: dict[Value, Operand] = {}
        for side in (side for attention in turned for side in _sides(attention)):
            sides.setdefault(side.value, side)

        def check(side: Operand) -> tuple[Operand, Rotation]:
            if stuck:
                raise Unfit(stuck)
            if side.value.op in OPERATORS:
                raise Unfit("it is one operator already")
            found = rotation(side)
            source = back(found.input, side.axes, side.heads, side.size, 1)
            if source.factor != 1:
                raise Unfit("it is scaled before it is rotated")
            return source, found

        fused = drive(
            sides.values(),
            lambda side: side.value.name,
            check,
            lambda side, plan: writer.write(side, *plan),
            "fuse rotary",
            context,
            notes,
        )
        if fused:
            writer.editor.prune()
            raise_opset(program.graph, _OPSET)
        statistics = {"rotations fused": f"{len(fused)} of {len(sides)}"}
        return Result(program, bool(fused), statistics, tuple(notes))


def _sides(attention: Attention) -> tuple[Operand, Operand]:
    """The rotated query and key, before heads are repeated or scaled."""
    a, groups = attention, attention.heads // attention.kv_heads
    query = back(a.query, parse(a.layouts[0]), a.heads, a.head_dim, 1)
    return query, back(a.key, parse(a.layouts[1]), a.heads, a.head_dim, groups)


class _Writer:
    """Writes rotations into one graph; cosines and sines that layers share are prepared once."""

    def __init__(self, model: ir.Model) -> None:
        self.editor = Editor(model)
        self._caches: dict[tuple[Value, str], ir.Value] = {}

    def write(self, side: Operand, source: Operand, found: Rotation) -> None:
        old = side.value.native
        name, before = f"{old.name}.rotary", old.producer()
        flat = joined(self.editor, source, f"{name}.input", before)
        caches = [self._cache(found, v, flat, before) for v in (found.cos, found.sin)]
        attrs = {"num_heads": side.heads, "interleaved": int(found.interleaved)}
        if found.width < side.size:
            attrs["rotary_embedding_dim"] = found.width
        node = self.editor.node(
            "RotaryEmbedding", [flat, *caches], name, before=before, attrs=attrs, like=flat
        )
        shape = self.editor.initializer(np.array([0, 0, side.heads, side.size]), f"{name}.shape")
        result = self.editor.node(
            "Reshape", [node.outputs[0], shape], f"{name}.heads", before=before
        ).outputs[0]
        if side.axes != ("b", "l", "h", "d"):
            perm = ["blhd".index(letter) for letter in side.axes]
            result = self.editor.node(
                "Transpose", [result], f"{name}.split", before=before, attrs={"perm": perm}, like=old
            ).outputs[0]
        self.editor.replace(old, result)

    def _cache(self, found: Rotation, value: Value, flat: ir.Value, before: ir.Node) -> ir.Value:
        """cos or sin as (batch, length, width / 2)."""
        key = (value, ",".join(map(str, found.unit)))
        if key in self._caches:
            return self._caches[key]
        name = f"{value.name}.cache"
        add = lambda op, inputs, **attrs: self.editor.node(
            op, inputs, name, before=before, attrs=attrs
        ).outputs[0]
        ints = lambda numbers, what: self.editor.initializer(np.array(numbers), f"{name}.{what}")
        result = value.native
        if found.unit:
            result = add("Squeeze", [result, ints(found.unit, "axes")])
        shape = value.shape
        assert shape, "rotation() reads the rank"
        rank = len(shape) - len(found.unit)
        if rank == 2:
            result = add("Unsqueeze", [result, ints([0], "batch")])
        if shape[-1] == found.width:
            step = 2 if found.interleaved else 1
            end = found.width if found.interleaved else found.width // 2
            bounds = [
                ints([n], what) for n, what in ((0, "start"), (end, "end"), (-1, "axis"), (step, "step"))
            ]
            result = add("Slice", [result, *bounds])
        if rank == 2 or shape[0] == 1:
            batch = add("Shape", [flat], start=0, end=1)
            one = ints([1], "one")
            result = add("Expand", [result, add("Concat", [batch, one, one], axis=0)])
        self._caches[key] = result
        return result

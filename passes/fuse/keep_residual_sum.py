"""keep-residual-sum: keep residual sums out of a fused kernel that is slower than its parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...ir.onnx.graph import OnnxView
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class KeepResidualSum(Pass):
    """Write the sum before a LayerNormalization as Sum instead of Add.

            t = Add(x, z); y = LayerNormalization(t, w, b)
        ->  t = Sum(x, z); y = LayerNormalization(t, w, b)

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization, whose CPU kernel runs one
    element at a time and takes several times as long as the two, which are vectorised. A Sum it leaves alone.
    """

    name: ClassVar[str] = "keep-residual-sum"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-6)

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        graph = OnnxView(program.graph)
        sums: Counter[ir.Node] = Counter()
        notes: list[str] = []
        for norm in program.graph.graph:
            if norm.op_type == "LayerNormalization" and norm.domain in ("", "ai.onnx"):
                total = norm.inputs[0].producer() if norm.inputs[0] is not None else None
                why = _unfit(total, graph)
                if total is None or why:
                    notes.append(f"{norm.outputs[0].name}: {why}")
                else:
                    sums[total] += 1
        seen, kept = sum(sums.values()) + len(notes), 0
        for total, norms in sums.items():
            if context.allow(f"keep residual sum {total.outputs[0].name}"):
                total.op_type = "Sum"
                kept += norms
        return Result(program, kept > 0, {"residual sums kept": f"{kept} of {seen} norms"}, tuple(notes))


def _unfit(total: ir.Node | None, graph: OnnxView) -> str:
    """Why the sum that a norm reads stays an Add; empty if it does not."""
    if total is None or total.op_type != "Add" or any(map(_constant, total.inputs)):
        return "it normalises no Add of two computed values"
    shapes = [graph.of(side).shape for side in total.inputs]
    known = shapes[0] is not None and None not in shapes[0] and shapes[0] == shapes[1]
    return "" if known else "the sides of its sum are not known to have one shape"


def _constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None

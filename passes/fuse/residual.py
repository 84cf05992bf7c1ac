"""reorder-residual: keep residual sums out of a fused kernel that is slower than its parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...ir.onnx import Editor, OnnxView
from ...ir.program import Program
from ..base import Context, Exact, Pass, Result


@dataclass(frozen=True)
class ReorderResidual(Pass):
    """Write (product + bias) + stream before a LayerNormalization as (product + stream) + bias.

    ONNX Runtime fuses the first form into SkipLayerNormalization, whose CPU kernel runs one element at a time
    and takes several times as long as Add and LayerNormalization, which are vectorised; the second form it
    leaves alone. A sum without a bias becomes a Sum, which it leaves alone too.
    """

    name: ClassVar[str] = "reorder-residual"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-5)
    gated: ClassVar[bool] = True

    def run(self, program: Program, context: Context) -> Result:
        graph = OnnxView(program.graph)
        sums: list[ir.Node] = []
        notes: list[str] = []
        for norm in program.graph.graph:
            if norm.op_type == "LayerNormalization" and norm.domain in ("", "ai.onnx"):
                total = norm.inputs[0].producer() if norm.inputs[0] is not None else None
                why = _unfit(total, graph)
                if total is None or why:
                    notes.append(f"{norm.outputs[0].name}: {why}")
                sums += [total] if total is not None and not why else []
        seen = len(sums) + len(notes)
        editor, count = Editor(program.graph), 0
        for total, norms in Counter(sums).items():
            if context.allow(f"reorder residual {total.outputs[0].name}"):
                _reorder(editor, total)
                count += norms
        if count:
            editor.prune()
        return Result(program, count > 0, {"residuals reordered": f"{count} of {seen} norms"}, tuple(notes))


def _unfit(total: ir.Node | None, graph: OnnxView) -> str:
    """Why what a norm reads is not reordered; empty if it is."""
    if total is None or total.op_type != "Add" or any(map(_constant, total.inputs)):
        return "it normalises no sum of two computed values"
    shapes = [graph.of(side).shape for side in total.inputs]
    known = shapes[0] is not None and None not in shapes[0] and shapes[0] == shapes[1]
    return "" if known else "the sides of its sum are not known to have one shape"


def _reorder(editor: Editor, total: ir.Node) -> None:
    result = total.outputs[0]
    name = f"{result.name}.reordered"
    for branch, stream in (total.inputs, total.inputs[::-1]):
        found = _biased(branch)
        if found is not None:
            product, bias = found
            inner = editor.node("Add", [product, stream], f"{name}.sum", before=total, like=result).outputs[0]
            new = editor.node("Add", [inner, bias], name, before=total, like=result)
            break
    else:
        new = editor.node("Sum", list(total.inputs), name, before=total, like=result)
    editor.replace(result, new.outputs[0])


def _biased(branch: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """(product, bias) of a branch that ends in adding a constant vector, if nothing else reads it."""
    node = branch.producer() if branch is not None else None
    if branch is None or node is None or node.op_type != "Add" or len(branch.uses()) != 1:
        return None
    for product, bias in (node.inputs, node.inputs[::-1]):
        if product is None or bias is None or branch.is_graph_output() or _constant(product):
            continue
        if _constant(bias) and len(bias.shape or ()) == 1:
            return product, bias
    return None


def _constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None

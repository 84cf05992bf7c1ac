"""eliminate-identities: remove operations that return their operand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.onnx.graph import Editor, OnnxView
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result
from .parts.identity_rules import shortcut, unchanged


@dataclass(frozen=True)
class EliminateIdentities(Pass):
    """Remove operations that give back their operand: Identity, casts to the same type, x + 0, and so on.

            a = Identity(x); b = Add(a, 0); y = Relu(b)
        ->  y = Relu(x)

    ONNX: Identity; Dropout outside training; Cast to the operand's type and back from a type that holds it
    exactly; Reshape, Expand, Slice and Transpose that keep everything in place; Squeeze and Unsqueeze that
    undo each other; transposes and reshapes in a row, which become one; x + 0, x - 0, x * 1, x / 1,
    x and true, x or false, where broadcasting does not enlarge x; Concat, Sum, Min, Max and Mean of one.

    fx: alias, lift_fresh; dropout outside training (nothing is left then for a training pass to turn on);
    clone, contiguous, to, expand, view and reshape that change neither shape, strides nor type; metadata
    assertions. detach stays: it stops gradients.
    """

    name: ClassVar[str] = "eliminate-identities"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact(1e-6)

    def run(self, program: Program, context: Context) -> Result:
        if program.dialect == "fx":
            from .parts.identities_fx import remove_fx

            removed = remove_fx(program.graph, context)
            return Result(program, removed > 0, {"nodes removed": removed})
        editor, view = Editor(program.graph), OnnxView(program.graph)
        removed = shortened = 0
        for node in program.graph.graph:
            if shortcut(node, view, context.allow):
                shortened += 1
            value = unchanged(node, view)
            result = node.outputs[0]
            # A graph output must keep its name, which an input, a weight or another output cannot take on.
            kept = result.is_graph_output() and (
                value is None or value.producer() is None or value.is_graph_output()
            )
            if value is None or kept or not context.allow(f"remove {node.op_type} {result.name}"):
                continue
            editor.replace(result, value)
            program.graph.graph.remove(node, safe=True)
            removed += 1
        return Result(
            program, removed + shortened > 0, {"nodes removed": removed, "nodes shortened": shortened}
        )

"""A pass that breaks a model by one of its rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphwright.ir.onnx.graph import Editor
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class Breaks(Pass):
    """Write a / b as a * (1 / b), but as b * (1 / a) where it is the second norm."""

    name: ClassVar[str] = "breaks"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact()

    def run(self, program: Program, context: Context) -> Result:
        editor, count = Editor(program.graph), 0
        for node in list(program.graph.graph):
            if node.op_type == "Div" and context.allow(f"invert {node.outputs[0].name}"):
                (result,) = node.outputs
                above, below = node.inputs[:: -1 if result.name == "n2" else 1]
                inverse = editor.node(
                    "Reciprocal", [below], f"{result.name}.inverse", before=node, like=result
                )
                inputs = [above, inverse.outputs[0]]
                copy = editor.node("Mul", inputs, f"{result.name}.copy", before=node, like=result)
                editor.replace(result, copy.outputs[0])
                count += 1
        if count:
            editor.prune()
        return Result(program, count > 0, {"divisions written anew": count})

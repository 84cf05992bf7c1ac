"""The view over a program's graph, whatever its dialect: what recognisers are written against."""

from __future__ import annotations

from .program import Program
from .values import GraphView


def view(program: Program) -> GraphView:
    """The view over a program's graph, made by its dialect's adapter."""
    if program.dialect == "onnx":
        from .onnx.graph import OnnxView

        return OnnxView(program.graph)
    from .fx.graph import FxView

    return FxView(program.graph, program.inputs)

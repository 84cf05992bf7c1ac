"""specialise-shapes: fix symbolic sizes, so that what depends on them is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...ir.errors import PipelineError
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result
from .fold_constants import FoldConstants, fold


@dataclass(frozen=True)
class SpecialiseShapes(Pass):
    """Fix the batch size, the length or other symbols of the inputs, and fold what follows from them.

            x: f32[batch,length,64]; y = Reshape(x, Concat(Shape(x)[:2], [4, 16]))
        ->  x: f32[8,128,64]; y = Reshape(x, [8, 128, 4, 16])

    batch, length: the new sizes of the symbols of these names; none leaves a symbol free.
    others: (symbol, size) pairs for symbols of other names.
    """

    name: ClassVar[str] = "specialise-shapes"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)
    in_bodies: ClassVar = False

    batch: int | None = None
    length: int | None = None
    others: tuple[tuple[str, int], ...] = ()

    def run(self, program: Program, context: Context) -> Result:
        wished = {"batch": self.batch, "length": self.length, **dict(self.others)}
        sizes = {symbol: size for symbol, size in wished.items() if size is not None}
        _check(program, sizes)
        if not sizes or not context.allow(f"fix {', '.join(f'{s}={n}' for s, n in sizes.items())}"):
            return Result(program, False)
        inputs = tuple(
            replace(
                spec, shape=tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape)
            )
            for spec in program.inputs
        )
        symbols = {symbol: bounds for symbol, bounds in program.symbols.items() if symbol not in sizes}
        specialised = replace(program, inputs=inputs, symbols=symbols)
        _fix(specialised, sizes)
        counts, notes = fold(program.graph, FoldConstants.max_bytes, context)
        _infer(program.graph)
        return Result(
            specialised,
            True,
            {"symbols fixed": len(sizes), "nodes folded": counts["nodes folded"]},
            tuple(notes),
        )


def _check(program: Program, sizes: Mapping[str, int]) -> None:
    """Raise PipelineError for a symbol that no input has, or a size out of its bounds."""
    present = {dim for spec in program.inputs for dim in spec.shape if isinstance(dim, str)}
    for symbol, size in sizes.items():
        if symbol not in present:
            there = ", ".join(sorted(present)) or "none"
            raise PipelineError(f"specialise-shapes: no input has a symbol '{symbol}' (there are: {there})")
        low, high = program.symbols.get(symbol, (1, size))
        if not low <= size <= high:
            raise PipelineError(
                f"specialise-shapes: {symbol}={size} is outside what the model takes, {low} to {high}"
            )


def _fix(program: Program, sizes: Mapping[str, int]) -> None:
    """Put the sizes into the graph's inputs, and into the shapes inside that name the symbols."""
    graph = program.graph.graph
    for value, spec in zip(graph.inputs, program.inputs, strict=True):
        value.shape = ir.Shape(spec.shape)
    for value in (result for node in graph for result in node.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(_fixed(dim, sizes) for dim in value.shape)


def _fixed(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    return sizes.get(dim.value, dim.value) if dim.value is not None else None


def _infer(model: ir.Model) -> None:
    """Infer shapes anew where they were not fixed; where inference finds nothing, what was known stays."""
    known = {}
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and not value.shape.is_static():
                known[value] = value.shape
                if not value.is_graph_output():
                    value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, shape in known.items():
        if value.shape is None or not value.shape.is_static():
            value.shape = shape

"""Names for the symbolic axes of a foreign ONNX model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from ..onnx import OnnxView
from ..program import UNBOUNDED
from ..uses import ranges


def name_dims(
    model: ir.Model, ids: Sequence[ir.Value]
) -> tuple[dict[str, tuple[int | str, ...]], dict[str, tuple[int, int]]]:
    """Gives every symbolic axis of the inputs a name, in place, all over the graph.

    Args:
        model: whose values' shapes are rewritten.
        ids: inputs that may be (batch, length), whatever the file calls the two.

    Returns:
        The shapes by input, and the bounds by symbol.
    """
    renamed = _names(model, ids)
    for value in model.graph.inputs:
        if value.shape is not None:
            dims = [
                f"{value.name}_{axis}" if isinstance(dim, ir.SymbolicDim) and dim.value is None else dim
                for axis, dim in enumerate(value.shape)
            ]
            value.shape = ir.Shape(dims)
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    for value in (*model.graph.inputs, *(result for node in nodes for result in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, renamed) for dim in value.shape])
    shapes = {
        value.name or "": tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())
        for value in model.graph.inputs
    }
    symbols = {d: (1, UNBOUNDED) for shape in shapes.values() for d in shape if isinstance(d, str)}
    return shapes, symbols


def _names(model: ir.Model, ids: Sequence[ir.Value]) -> dict[str, str]:
    """The file's name of an axis -> ours: that of what is looked up in a table, of the first integers where
    nothing is, and of integers without names. Others stay, unless ours would clash."""
    names: dict[str, str] = {}
    view = OnnxView(model)
    tokens = [value for value in ids if any(found.table for found in ranges(view.of(value)))]
    for value in dict.fromkeys((*tokens, *ids)):
        for axis, ours in enumerate(("batch", "decoder_length" if _decoder(value) else "length")):
            dim = value.shape[axis] if value.shape is not None else None
            if not isinstance(dim, ir.SymbolicDim):
                continue
            if dim.value is None:
                names[f"{value.name}_{axis}"] = ours
            elif ours not in names.values():  # axes that the file names differently are different
                names.setdefault(dim.value, ours)
    for value in model.graph.inputs:
        for dim in value.shape or ():
            if isinstance(dim, ir.SymbolicDim) and dim.value in ("batch", "length", "decoder_length"):
                names.setdefault(
                    dim.value, f"{dim.value}_other" if dim.value in names.values() else dim.value
                )
    return names


def _decoder(value: ir.Value) -> bool:
    return (value.name or "").startswith("decoder")


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    """An axis size, or an expression of them, in our names."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in names:
        return names[dim.value]
    return re.sub(r"[A-Za-z_]\w*", lambda found: names.get(found[0], found[0]), dim.value)

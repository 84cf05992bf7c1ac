"""Names for the symbolic axes of a foreign ONNX model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from ..spec import UNBOUNDED, InputSpec

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def name_axes(model: ir.Model) -> None:
    """Gives axes of the inputs that the file leaves without a name one each, in place.

    Names that torch's exporter made up ("input_ids_dynamic_axes_1") are none. Integers and booleans of two
    axes have (batch, length) in common.
    """
    for value in model.graph.inputs:
        shared = value.dtype in _INTEGERS and value.shape is not None and len(value.shape) == 2
        ours = ("batch", _length(value)) if shared else ()
        if value.shape is not None:
            own = re.compile(rf"{re.escape(value.name or '')}_dynamic_axes_\d+")
            value.shape = ir.Shape(
                [
                    (f"_{ours[axis]}" if ours else f"{value.name}_{axis}")
                    if isinstance(dim, ir.SymbolicDim) and (dim.value is None or own.fullmatch(dim.value))
                    else dim
                    for axis, dim in enumerate(value.shape)
                ]
            )


def name_dims(
    model: ir.Model, specs: Sequence[InputSpec]
) -> tuple[dict[str, tuple[int | str, ...]], dict[str, tuple[int, int]]]:
    """Calls the axes of ids and of what shares them "batch" and "length", in place, all over the graph.

    Axes that the file names otherwise stay apart under its names: words beside tokens, spans, the second of
    two towers.

    Args:
        model: whose values' shapes are rewritten. specs: of its inputs, with the axes as they are called.

    Returns:
        The shapes by input, and the bounds by symbol.
    """
    renamed = _names(model, specs)
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


def _names(model: ir.Model, specs: Sequence[InputSpec]) -> dict[str, str]:
    """The file's name of an axis -> ours."""
    pairs = [v for v in model.graph.inputs if v.dtype in _INTEGERS and v.shape and len(v.shape) == 2]
    found = {spec.name for spec in specs if spec.role in ("token_ids", "decoder_token_ids")}
    ids = [value for value in pairs if value.name in found] or pairs
    names: dict[str, str] = {}
    for length in ("length", "decoder_length"):
        side = [value for value in ids if _length(value) == length]
        for axis, ours in enumerate(("batch", length)):
            name = _axis(side[0], axis) if side else None
            if name and ours not in names.values():
                names.setdefault(name, ours)
    names |= {f"_{name}": name for name in ("batch", "length", "decoder_length")}
    taken = set(names.values())
    for value in model.graph.inputs:
        for place in range(len(value.shape or ())):
            name = _axis(value, place)
            if name and name not in names and name in taken:
                names[name] = f"{name}_other"
    return names


def _axis(value: ir.Value, axis: int) -> str | None:
    dim = value.shape[axis] if value.shape is not None else None
    return dim.value if isinstance(dim, ir.SymbolicDim) else None


def _length(value: ir.Value) -> str:
    return "decoder_length" if (value.name or "").startswith("decoder") else "length"


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    """An axis size, or an expression of them, in our names."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in names:
        return names[dim.value]
    return re.sub(r"[A-Za-z_]\w*", lambda found: names.get(found[0], found[0]), dim.value)

"""What a file says of its sizes, in words: why an axis has one alone, what bounds it, how to free it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ..onnx.graph import OnnxView
from ..spec import UNBOUNDED, InputSpec

STATED = "the file states it"
_TEXT = ("token_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_token_ids")
_ONNX = "export the model anew with dynamic axes"
PT2 = "export the model anew with dynamic_shapes"


def described(
    model: ir.Model,
    specs: Sequence[InputSpec],
    named: Mapping[str, Sequence[int | str]],
    asked: Mapping[str, tuple[int, str]],
    symbols: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
    """info of an .onnx file: its sizes, as `ir.extents` reads them, and a note on what it fixes.

    Args:
        named: the shapes of the inputs as the file has them. asked: of those names, the size that a node of
            the graph takes alone, and the node. symbols: bounds that the graph sets.
    """
    reasons = {
        f"{spec.name}.{axis}": _why(named[spec.name][axis], asked)
        for spec in specs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, int)
    }
    for symbol, (low, high) in symbols.items():
        needs = [f"its convolutions need {low}"] if low > 1 else []
        needs += [f"a table of positions ends at {high}"] if high < UNBOUNDED else []
        if needs:
            reasons[symbol] = " and ".join(needs)
    view = OnnxView(model)
    shapes = {value.name or "": view.of(value).shape for value in model.graph.outputs}
    known = {name: list(shape) for name, shape in shapes.items() if shape and None not in shape}
    notes = fixed_by_file(specs, reasons, _ONNX)
    return {"sizes": {"reasons": reasons, "outputs": known}} | ({"notes": notes} if notes else {})


def _why(name: int | str, asked: Mapping[str, tuple[int, str]]) -> str:
    if isinstance(name, int):
        return STATED
    return f"the graph's '{asked[name][1]}' takes no other size" if name in asked else STATED


def fixed_by_file(specs: Sequence[InputSpec], reasons: Mapping[str, str], mend: str) -> list[str]:
    """A warning where rows, or lengths of texts, have only the size that the file was written with."""
    texts = [spec for spec in specs if spec.role in _TEXT and len(spec.shape) > 1]
    main = texts or [spec for spec in specs if len(spec.shape) > 1]
    found = [
        f"axis {axis} of {', '.join(repr(spec.name) for spec in each)} is fixed at {size}"
        for axis in ((0, 1) if texts else (0,))
        for size, each in _alike(main, axis, reasons)
    ]
    if not found:
        return []
    return [f"{' and '.join(found)}, as the file states it: other calls are refused; for those, {mend}."]


def _alike(
    specs: Iterable[InputSpec], axis: int, reasons: Mapping[str, str]
) -> Iterable[tuple[int, list[InputSpec]]]:
    """(size, inputs that the file fixes at it) on an axis."""
    found: dict[int, list[InputSpec]] = {}
    for spec in specs:
        size = spec.shape[axis]
        if isinstance(size, int) and reasons.get(f"{spec.name}.{axis}") == STATED:
            found.setdefault(size, []).append(spec)
    return found.items()

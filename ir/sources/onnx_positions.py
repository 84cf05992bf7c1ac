"""How long an input of an ONNX model may grow before a table of positions runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ..execute import execute_onnx
from ..onnx import OnnxView
from ..program import InputSpec

_SIZES = (3, 6)


def longest(model: ir.Model, view: OnnxView, specs: Sequence[InputSpec]) -> dict[str, int]:
    """Largest size of each symbol for which every computed id stays inside its table.

    The part of the graph that computes position ids is run alone, at two short lengths to see whether ids
    grow by one with the length, and just past the length at which they would then leave the table.
    """
    tables = list(_computed(view))
    bounds: dict[str, int] = {}
    for symbol in sorted({s for spec in specs for s in spec.shape if isinstance(s, str)} - {"batch"}):
        for rows, ids in tables:
            first, second = (_ids(model, ids, specs, symbol, size) for size in _SIZES)
            bound = rows - (int(first.max()) - (_SIZES[0] - 1))
            if second.max() - first.max() != _SIZES[1] - _SIZES[0] or bound >= bounds.get(symbol, bound + 1):
                continue
            beyond = _ids(model, ids, specs, symbol, bound + 1)
            if beyond.max() >= rows or beyond.shape == _ids(model, ids, specs, symbol, bound).shape:
                bounds[symbol] = bound  # the ids leave the table, or were cut off at its end
    return bounds


def _computed(view: OnnxView) -> Iterator[tuple[int, ir.Value]]:
    """(rows of the table, ids) of every lookup whose ids are neither an input nor constant."""
    for value in view:
        if value.op != "embedding":
            continue
        table, ids = value.inputs[:2]
        if table is None or ids is None or ids.op in ("input", "const") or not table.shape:
            continue
        if isinstance(table.shape[0], int):
            yield table.shape[0], ids.native


def _ids(model: ir.Model, ids: ir.Value, specs: Sequence[InputSpec], symbol: str, size: int) -> np.ndarray:
    """What the graph computes for `ids` from one row of the largest ids, nothing masked."""
    feed = {
        spec.name: np.full(
            [size if dim == symbol else 1 if isinstance(dim, str) else dim for dim in spec.shape],
            spec.high - 1 if spec.high else 1,
            spec.dtype,
        )
        for spec in specs
    }
    graph = ir.convenience.extract(model.graph, list(model.graph.inputs), [ids])
    part = ir.Model(graph, ir_version=model.ir_version)
    used = {value.name for value in part.graph.inputs}
    (result,) = execute_onnx(part, [ids.name or ""], [{k: v for k, v in feed.items() if k in used}])
    return result[ids.name or ""]

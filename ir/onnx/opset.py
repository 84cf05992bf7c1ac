"""The version of ONNX's own operators that a graph is written in, and raising it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

# Read as they stand from opset 18 on, operators only gained types and attributes; these changed meaning.
_CHANGED = {"DFT": 20, "GridSample": 20, "GroupNormalization": 21}
OLDEST = 18
ONNX = ("", "ai.onnx")


def opset(model: ir.Model) -> int:
    """The version of the default domain that a model imports."""
    return next((model.opset_imports[d] for d in ONNX if d in model.opset_imports), 1)


def cannot_raise(model: ir.Model, version: int) -> str | None:
    """Why a model cannot be read as opset `version`, or None if it can.

    Source: the version histories at https://onnx.ai/onnx/operators/.
    """
    return cannot_raise_nodes(ir.traversal.RecursiveGraphIterator(model.graph), opset(model), version)


def cannot_raise_nodes(nodes: Iterable[ir.Node], current: int, version: int) -> str | None:
    """The same for nodes that are written in opset `current`."""
    if current >= version:
        return None
    if current < OLDEST:
        return f"the model imports opset {current}, and from before opset {OLDEST} operators need rewriting"
    for node in nodes:
        changed = _CHANGED.get(node.op_type, 0) if node.domain in ONNX else 0
        if current < changed <= version:
            return f"{node.op_type} ({node.name}) means something else from opset {changed} on"
    return None


def raise_opset(model: ir.Model, version: int) -> None:
    """Import at least opset `version`. Ask `cannot_raise` first."""
    if opset(model) < version:
        model.opset_imports[""] = version

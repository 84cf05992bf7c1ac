"""Raising the version of ONNX's own operators that a graph is written in."""

from __future__ import annotations

import onnx_ir as ir

# Read as they stand from opset 18 on, operators only gained types and attributes; these changed meaning.
_CHANGED = {"DFT": 20, "GridSample": 20, "GroupNormalization": 21}
_OLDEST = 18
_DEFAULT = ("", "ai.onnx")


def opset(model: ir.Model) -> int:
    """The version of the default domain that a model imports."""
    return next((model.opset_imports[d] for d in _DEFAULT if d in model.opset_imports), 1)


def cannot_raise(model: ir.Model, version: int) -> str | None:
    """Why a model cannot be read as opset `version`, or None if it can.

    Source: the version histories at https://onnx.ai/onnx/operators/.
    """
    current = opset(model)
    if current >= version:
        return None
    if current < _OLDEST:
        return f"the model imports opset {current}, and from before opset {_OLDEST} operators need rewriting"
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        changed = _CHANGED.get(node.op_type, 0) if node.domain in _DEFAULT else 0
        if current < changed <= version:
            return f"{node.op_type} ({node.name}) means something else from opset {changed} on"
    return None


def raise_opset(model: ir.Model, version: int) -> None:
    """Import at least opset `version`. Ask `cannot_raise` first."""
    if opset(model) < version:
        model.opset_imports[""] = version

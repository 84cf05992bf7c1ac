"""Where a fused attention's result goes: from (batch, length, features) to the axes that the graph had."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.blocks.base import Attention
from ....ir.blocks.walk import bare
from ....ir.onnx.graph import Editor
from ....ir.values import Value
from .driver import Unfit
from .operands import Axes, parse

_PLACES: tuple[Axes, ...] = (("b", "l", "hd"), ("l", "b", "hd"), ("b", "hd", "l"), ("bl", "hd"), ("lb", "hd"))
_SPLIT = ["b", "d", "h", "l"]  # heads that something else meets


def merged(attention: Attention) -> Axes:
    """The axes of an attention's merged context.

    Raises:
        Unfit: the heads are merged in a way that is not understood.
    """
    steps: list[Value] = []
    value = attention.context
    while value.op in ("reshape", "transpose", "identity") and value.inputs[0] is not None:
        steps.append(value)
        value = value.inputs[0]
    axes = _product(attention, value)
    for step in reversed(steps):
        if step.op == "transpose":
            axes = tuple(axes[p] for p in step.attrs["perm"])
        elif step.op == "reshape":
            axes = _reshaped(axes, step)
    if axes == ("b", "l", "d"):
        axes = _PLACES[0]
    if axes not in _PLACES and sorted(axes) != _SPLIT:
        raise Unfit(f"its heads end up on the axes {','.join(axes)}")
    return axes


def _product(attention: Attention, value: Value) -> Axes:
    """The axes of the product with the values."""
    queries, values = parse(attention.layouts[0]), parse(attention.layouts[2])
    if value.op == "matmul" and queries in (("b", "h", "l", "d"), ("bh", "l", "d"), ("b", "l", "d")):
        return queries
    if value.op == "einsum":
        operands, _, out = value.attrs["equation"].partition("->")
        for letters, operand in zip(operands.split(","), value.inputs, strict=True):
            if operand is not None and attention.value in (operand, bare(operand)):
                named = {letter: axis for letter, axis in zip(letters, values, strict=True) if axis != "l"}
                return tuple(named.get(letter, "l") for letter in out)
    raise Unfit(f"its values are weighed by {value.op} ({value.name}), whose axes are not understood")


def _reshaped(axes: Axes, step: Value) -> Axes:
    rank = len(step.attrs["shape"])
    if step.inputs[0] is not None and step.shape is not None and step.inputs[0].shape == step.shape:
        return axes
    if axes[0] == "bh" and rank == len(axes) + 1:
        return ("b", "h", *axes[1:])
    if axes == ("b", "h", "d", "l") and rank == 3:
        return ("b", "hd", "l")
    if axes == ("l", "bh", "d") and rank == 4:
        return ("l", "b", "h", "d")
    if axes == ("l", "bh", "d") or axes[-2:] == ("h", "d"):
        rows = (axes[0], "b") if axes[1] == "bh" else axes[:-2]
        if rank == 3 and len(rows) == 2:
            return (*rows, "hd")
        if rank == 2 and len(rows) == 2:
            return ("".join(rows), "hd")
    raise Unfit(f"the reshape '{step.name}' merges the axes {','.join(axes)} in a way that is not understood")


def placed(
    editor: Editor, result: ir.Value, axes: Axes, features: int, heads: int, before: ir.Node
) -> ir.Value:
    """A (batch, length, features) value with its axes as `merged` names them."""
    name = result.name or ""
    if len(axes) == 4:
        shape = editor.initializer(np.array([0, 0, heads, features // heads]), f"{name}.shape")
        split = editor.node("Reshape", [result, shape], f"{name}.heads", before=before).outputs[0]
        perm = {"perm": ["blhd".index(axis) for axis in axes]}
        return editor.node("Transpose", [split], f"{name}.axes", before=before, attrs=perm).outputs[0]
    if axes[0][0] == "l" or axes[-1] == "l":
        perm = {"perm": [0, 2, 1] if axes[-1] == "l" else [1, 0, 2]}
        result = editor.node("Transpose", [result], f"{name}.rows", before=before, attrs=perm).outputs[0]
    if len(axes) == 2:
        shape = editor.initializer(np.array([-1, features]), f"{name}.shape")
        result = editor.node("Reshape", [result, shape], f"{name}.flat", before=before).outputs[0]
    return result

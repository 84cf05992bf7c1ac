"""Queries, keys and values as fused kernels want them: (batch, length, heads * head size).

A recognised attention holds its operands as they enter the products. From there the way back leads through
transposes, reshapes, repeated heads and factors to a value whose heads still lie side by side; a kernel that
splits heads itself can take that one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.blocks.base import Attention
from ....ir.blocks.rotary import rotary
from ....ir.blocks.scores import times
from ....ir.blocks.walk import LAYOUT, passes
from ....ir.onnx.graph import Editor
from ....ir.values import Value
from .driver import Unfit

Axes = tuple[str, ...]
_TOKENS = ("b", "l", "hd")
_LENGTH_FIRST = ("l", "b", "hd")


@dataclass(frozen=True)
class Operand:
    """value: with `heads` heads of `size` features, its axes named by `axes`; `factor` times it enters the
    scores."""

    value: Value
    axes: Axes
    heads: int
    size: int
    factor: float


def operands(attention: Attention, grouped: bool) -> tuple[Operand, Operand, Operand, float]:
    """(query, key, value, scale): scale multiplies the scores when these operands enter a kernel.

    Args:
        grouped: the kernel repeats heads of keys and values itself.

    Raises:
        Unfit: an operand's heads cannot be put side by side, or it is no float32.
    """
    size = attention.value.shape[parse(attention.layouts[2]).index("d")] if attention.value.shape else None
    if not isinstance(size, int):
        raise Unfit("the head size of its values is unknown")
    a, dim = attention, attention.head_dim
    groups = a.heads // a.kv_heads if grouped else 1
    query = back(a.query, parse(a.layouts[0]), a.heads, dim, 1)
    key = back(a.key, parse(a.layouts[1]), a.heads, dim, groups)
    value = back(a.value, parse(a.layouts[2]), a.heads, size, groups)
    if key.heads != value.heads:  # one of them is turned after its heads were repeated
        key = back(a.key, parse(a.layouts[1]), a.heads, dim, 1)
        value = back(a.value, parse(a.layouts[2]), a.heads, size, 1)
    for operand in (query, key, value):
        if operand.axes not in (_TOKENS, _LENGTH_FIRST) and sorted(operand.axes) != ["b", "d", "h", "l"]:
            axes = ",".join(operand.axes)
            raise Unfit(f"'{operand.value.name}' has axes {axes}, from which heads cannot be rejoined")
        if operand.value.dtype not in (None, "float32"):
            raise Unfit(
                f"'{operand.value.name}' is {operand.value.dtype}, and the kernel computes in float32"
            )
    if not grouped and key.heads != query.heads:
        raise Unfit(
            f"{key.heads} heads of keys serve {query.heads} of queries, which the kernel does not repeat"
        )
    if key.heads != value.heads:
        raise Unfit(f"{key.heads} heads of keys, but {value.heads} of values")
    return query, key, value, a.scale / _inner(query.value) / _inner(key.value)


def parse(layout: str) -> Axes:
    """ "(bh)ld" as ("bh", "l", "d")."""
    return tuple(a or b for a, b in re.findall(r"\((\w+)\)|(.)", layout))


def back(value: Value, axes: Axes, heads: int, size: int, groups: int) -> Operand:
    """The nearest value on the way up whose heads lie side by side, or else the furthest one.

    Args:
        value: with its axes named.
        heads: of the queries, which one head of keys or values may serve as it is.
        groups: how often each head is repeated for grouped queries; the repetition is left out.
    """
    factor = 1.0
    if "h" not in axes and axes.count("1") == 1:
        axes = tuple("h" if axis == "1" else axis for axis in axes)
    if "h" in axes and value.shape is not None and value.shape[axes.index("h")] == 1:
        heads = groups = 1  # the product itself repeats the one head
    if axes == ("b", "l", "d"):
        return Operand(value, _TOKENS, 1, size, factor)
    while axes not in (_TOKENS, _LENGTH_FIRST):
        number, source = times(value), value.inputs[0] if value.inputs else None
        repeated = _repeated(value, axes, heads, groups) if groups > 1 else None
        if number is not None:
            factor, value = factor * number[0], number[1]
        elif repeated is not None:
            value, heads, groups = repeated, heads // groups, 1
        elif source is None or source.shape is None or value.op not in ("identity", "transpose", "reshape"):
            break
        elif value.op == "transpose":
            named = dict(zip(value.attrs["perm"], axes, strict=True))
            axes, value = tuple(named[i] for i in range(len(axes))), source
        elif value.op == "reshape":
            before = _before(axes, value, source.shape, heads * size)
            if before is None:
                break
            axes, value = before, source
        else:
            value = source
    return Operand(value, axes, heads, size, factor)


def _before(axes: Axes, value: Value, source: Sequence[object], features: int) -> Axes | None:
    """The axes before a reshape that splits or merges neighbours; None for any other."""
    rank = len(source)
    shape = value.shape or ()
    if axes[-2:] == ("h", "d") and rank == len(axes) - 1 and source[-1] == features:
        return (*axes[:-2], "hd")
    if axes[1:] == ("bh", "d") and rank == 3 and source[-1] == features:
        return (axes[0], "b", "hd")
    same = rank > 1 and len(shape) > 1 and all(
        a == b for a, b in zip(source[-2:], shape[-2:], strict=True) if a is not None and b is not None
    )  # fmt: skip
    if axes[:2] == ("b", "h") and rank == len(axes) - 1 and same:
        return ("bh", *axes[2:])
    if axes[0] == "bh" and rank == len(axes) + 1 and same:
        return ("b", "h", *axes[1:])
    return None


def _repeated(value: Value, axes: Axes, heads: int, groups: int) -> Value | None:
    """The keys or values before each head was repeated: unsqueezed, expanded, and merged again."""
    steps = [value]
    for op in ("reshape", "expand", "unsqueeze"):
        if steps[-1].op != op or steps[-1].inputs[0] is None:
            return None
        steps.append(steps[-1].inputs[0])
    _, expanded, unsqueezed, source = steps
    shape = expanded.shape
    head = axes.index("h") if "h" in axes and len(axes) == 4 else -2
    fits = shape is not None and shape[head : head + 2] == (heads // groups, groups)
    return source if fits and tuple(unsqueezed.attrs["axes"]) == (head + 1,) else None


def _inner(value: Value) -> float:
    """The numbers that multiply a value further up, which its attention's scale counts."""
    factor = 1.0
    while True:
        number, turned = times(value), rotary(value)
        if number is not None:
            factor, value = factor * number[0], number[1]
        elif turned is not None:
            value = turned.input
        elif (passes(value) or value.op in LAYOUT) and value.inputs[0] is not None:
            value = value.inputs[0]
        else:
            return factor


def joined(editor: Editor, operand: Operand, name: str, before: ir.Node) -> ir.Value:
    """The native value of shape (batch, length, heads * size), made with as few nodes as it takes."""
    native, axes = editor.current(operand.value.native), operand.axes
    if axes == _LENGTH_FIRST:
        return editor.node("Transpose", [native], name, before=before, attrs={"perm": [1, 0, 2]}).outputs[0]
    if axes == _TOKENS:
        return native
    perm = [axes.index(letter) for letter in "blhd"]
    if perm != [0, 1, 2, 3]:
        native = editor.node(
            "Transpose", [native], f"{name}.split", before=before, attrs={"perm": perm}
        ).outputs[0]
    shape = editor.initializer(np.array([0, 0, operand.heads * operand.size]), f"{name}.shape")
    return editor.node("Reshape", [native, shape], name, before=before).outputs[0]

"""Operators that sum over an axis, with or without keeping it: mean, var, softmax, norms, argmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..values import GraphValue
from .coupled import Coupled
from .elementwise import couple_elementwise
from .symbolic import Attrs, Known, Shape, Shapes, of_first


@of_first
def shape_reduce(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    axes = {a % len(first) for a in attrs["axes"]}
    if attrs["keepdim"]:
        return tuple(1 if i in axes else d for i, d in enumerate(first))
    return tuple(d for i, d in enumerate(first) if i not in axes)


def shape_argmax(shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    return shape_reduce(shapes, {**attrs, "axes": (attrs["axis"],)}, index)


def couple_reduce(c: Coupled, v: GraphValue) -> None:
    x, axes = c.of(v.inputs[0]), v.attrs["axes"]
    if v.attrs["keepdim"]:
        c.align(c.axes[v], x)
    else:
        for a, b in zip((t for axis, t in enumerate(x) if axis not in axes), c.axes[v], strict=True):
            c.same(a, b)
    if v.op in ("mean", "var") and axes == (len(x) - 1,):
        c.hint(x[-1], "hidden")


def couple_argmax(c: Coupled, v: GraphValue) -> None:
    x, axis = c.of(v.inputs[0]), v.attrs["axis"]
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} is a position along it")
    if v.attrs["keepdim"]:
        c.align(c.axes[v], x)
    else:
        for a, b in zip((*x[:axis], *x[axis + 1 :]), c.axes[v], strict=True):
            c.same(a, b)


def couple_norm(c: Coupled, v: GraphValue) -> None:
    couple_elementwise(c, v)
    if "softmax" not in v.op:
        c.hint(c.axes[v][-1], "hidden")


def reduced(function: Callable[..., Any]) -> Callable[[Sequence[Any], Attrs, Known], Any]:
    """What a NumPy reduction over an operator's axes computes."""
    return lambda o, a, known: function(o[0], axis=tuple(a["axes"]), keepdims=a["keepdim"])


def compute_var(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    return np.var(o[0], axis=tuple(a["axes"]), keepdims=a["keepdim"], ddof=a["correction"])


def compute_softmax(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    e = np.exp(o[0] - o[0].max(axis=a["axis"], keepdims=True))
    return e / e.sum(axis=a["axis"], keepdims=True)

"""Operators that compute each element from those at its place in every operand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..values import GraphValue
from .coupled import Coupled
from .symbolic import Attrs, Known, Shape, Shapes, broadcast, of_first

erf = np.vectorize(math.erf, otypes=[float])


@of_first
def shape_same(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    return first if index == 0 else None


def shape_broadcast(shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    return broadcast(shapes)


def couple_elementwise(c: Coupled, v: GraphValue) -> None:
    for operand in v.inputs:
        c.align(c.axes[v], c.of(operand))


def couple_fake_quantize(c: Coupled, v: GraphValue) -> None:
    """Steps and zeros are of the tensor, or one for each position along an axis."""
    x, *steps = v.inputs
    c.align(c.axes[v], c.of(x))
    if v.attrs["axis"] is not None:
        for each in steps:
            c.same(c.axes[v][v.attrs["axis"]], c.of(each)[0])


def unary(function: Callable[[Any], Any]) -> Callable[[Sequence[Any], Attrs, Known], Any]:
    """What a function of one array computes as an operator."""
    return lambda o, a, known: function(o[0])


def binary(function: Callable[[Any, Any], Any]) -> Callable[[Sequence[Any], Attrs, Known], Any]:
    """What a function of two arrays computes as an operator."""
    return lambda o, a, known: function(o[0], o[1])


def gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def biased_gelu(approximate: str) -> Callable[[Sequence[Any], Attrs, Known], Any]:
    """GELU of the first operand, or of the sum of two."""
    return lambda o, a, known: gelu(o[0] + o[1] if len(o) > 1 else o[0], approximate)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a // b if a.dtype.kind in "iu" and b.dtype.kind in "iu" else a / b


def compute_clip(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    low, high = ([*o[1:], None, None])[:2]
    x = o[0] if low is None else np.maximum(o[0], low)
    return x if high is None else np.minimum(x, high)


def compute_cast(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    kind = "float32" if a["to"] in ("bfloat16",) else a["to"]
    return o[0].astype(kind)

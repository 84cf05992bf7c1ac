"""Operators that take elements by their positions: embedding, gather, index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..values import GraphValue
from .coupled import Coupled
from .made import couple_frozen
from .symbolic import Attrs, Known, Shape, Shapes, of_first


@of_first
def shape_gather(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    ids, axis = shapes[1], attrs.get("axis", 0) % len(first)
    return None if ids is None else (*first[:axis], *ids, *first[axis + 1 :])


def shape_gather_elements(shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    return None if shapes[0] is None else shapes[1]


def couple_gather(c: Coupled, v: GraphValue) -> None:
    x, ids, axis = c.of(v.inputs[0]), c.of(v.inputs[1]), v.attrs.get("axis", 0)
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} looks it up by index")
    if v.op == "embedding":
        c.hint(x[0], "vocabulary")
    for a, b in zip((*x[:axis], *ids, *x[axis + 1 :]), c.axes[v], strict=True):
        c.same(a, b)


def couple_index(c: Coupled, v: GraphValue) -> None:
    """Neighbouring axes are looked up together, the indices' axes take their place, and the others stay."""
    axes, x = v.attrs["axes"], c.of(v.inputs[0])
    first, after = axes[0], axes[-1] + 1
    looked_up = len(c.axes[v]) - len(x) + len(axes)
    if axes != tuple(range(first, after)) or any(index and index.dtype == "bool" for index in v.inputs[1:]):
        couple_frozen(c, v)
        return
    c.freeze_axes(v.inputs[0], axes, f"{v.name} looks it up by index")
    for index in v.inputs[1:]:
        c.align(c.axes[v][first : first + looked_up], c.of(index))
    rest = (*c.axes[v][:first], *c.axes[v][first + looked_up :])
    for a, b in zip((*x[:first], *x[after:]), rest, strict=True):
        c.same(a, b)


def compute_index(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    key: list[Any] = [slice(None)] * o[0].ndim
    for axis, chosen in zip(a["axes"], o[1:], strict=True):
        key[axis] = chosen
    return o[0][tuple(key)]

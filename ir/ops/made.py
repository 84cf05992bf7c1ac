"""What no data flows into: inputs, constants, sizes, and tensors made from sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..values import GraphValue
from .coupled import Coupled
from .symbolic import Attrs, Known, Shape, Shapes, of_first


def shape_range(shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return (None,)


def shape_dim(shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return ()


@of_first
def shape_shape(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return (len(range(len(first))[attrs["start"] : attrs["end"]]),)


def couple_input(c: Coupled, v: GraphValue) -> None:
    c.freeze(v, f"an axis of the input {v.name}")


def couple_free(c: Coupled, v: GraphValue) -> None:
    """A weight, or something made from sizes alone: nothing couples its axes."""


def couple_sizes(c: Coupled, v: GraphValue) -> None:
    c.freeze_axes(v, [0], "a list of sizes")


def couple_frozen(c: Coupled, v: GraphValue) -> None:
    c.freeze(v, f"{v.op} reads {v.name} by position")


def compute_dim(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    return np.asarray(o[0].shape[a["axis"]], np.int64)


def compute_shape(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    return np.asarray(o[0].shape[a.get("start", 0) : a.get("end")], np.int64)


def compute_full(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    target: Any = a.get("shape")
    if target is None or None in target:
        target = known()
    return np.full(target, a["value"])

"""Which Linears are products of integers: rows rounded by the graph, weights stored in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ....ir.blocks.base import Linear
from ....ir.view import Value, View


@dataclass(frozen=True)
class Rounding:
    """mode: dynamic: u8 by each row's own range; static: u8 = round(x / scale) + zero for the whole tensor."""

    mode: Literal["dynamic", "static"]
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Product:
    """source: the floats that are rounded. weight: int8 [in, out]; scale: float32 [out]."""

    source: Value
    weight: np.ndarray
    scale: np.ndarray
    rounding: Rounding


@dataclass(frozen=True)
class Integers:
    """products: by the Linear's root. rounding: of every source; where several are asked for, the first."""

    products: dict[Value, Product] = field(default_factory=dict)
    rounding: dict[Value, Rounding] = field(default_factory=dict)


def integers(view: View, linears: Sequence[Linear]) -> Integers:
    """The integer products of a graph."""
    return Integers()

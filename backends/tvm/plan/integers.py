"""Which Linears are products of integers, or of bfloat16: rows rounded by the graph, weights stored so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ....ir.blocks.base import Linear
from ....ir.ops.evaluate import scalar
from ....ir.pattern import Match, any_of, commutative, const, find, op, var
from ....ir.values import Value


@dataclass(frozen=True)
class Rounding:
    """mode: dynamic: u8 by each row's own range; static: u8 = round(x / scale) + zero for all rows; bfloat16:
    the nearest one."""

    mode: Literal["dynamic", "static", "bfloat16"]
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Rounded:
    """source: the floats that are rounded. weight: int8 [in, out], or the bits of bfloat16 as uint16; scale:
    float32 [out], of int8."""

    source: Value
    weight: np.ndarray
    scale: np.ndarray | None
    rounding: Rounding

    @property
    def dtype(self) -> Literal["int8", "bfloat16"]:
        return "int8" if self.scale is not None else "bfloat16"


@dataclass(frozen=True)
class Integers:
    """products: by the Linear's root. rounding: of every source. One that is asked for in two ways is rounded
    in the first; what wants it the other way keeps its floats."""

    products: dict[Value, Rounded] = field(default_factory=dict)
    rounding: dict[Value, Rounding] = field(default_factory=dict)


def integers(linears: Sequence[Linear], guarded: bool) -> Integers:
    """The products of rounded rows among a graph's Linears.

    Args:
        guarded: rows that could be NaN are never computed, so what replaces NaN in them can be left out.
    """
    found = Integers()
    for linear in linears:
        product = _of_integers(linear) or _of_bfloat16(linear)
        if guarded and product is not None:
            product = replace(product, source=_unguarded(product.source))
        if (
            product is not None
            and found.rounding.setdefault(product.source, product.rounding) == product.rounding
        ):
            found.products[linear.root] = product
    return found


def _of_bfloat16(linear: Linear) -> Rounded | None:
    """Rows rounded to bfloat16 and cast back, times a weight that has no other numbers."""
    x, data = linear.input, linear.weight.const
    half = x.inputs[0] if x.op == "cast" and x.dtype == "float32" else None
    if half is None or half.op != "cast" or half.dtype != "bfloat16" or data is None:
        return None
    source = half.inputs[0]
    if linear.axis != -1 or linear.groups != 1 or source is None or source.dtype != "float32":
        return None
    bits = np.asarray(data.T if linear.transposed else data, np.float32).view(np.uint32)
    if (bits & 0xFFFF).any():
        return None
    return Rounded(source, (bits >> 16).astype(np.uint16), None, Rounding("bfloat16"))


def _of_integers(linear: Linear) -> Rounded | None:
    x = linear.input
    if x.op != "fake_quantize" or linear.axis != -1 or linear.groups != 1:
        return None
    source, scale, zero = x.inputs
    weight = stored_weight(linear)
    if source is None or scale is None or zero is None or weight is None or zero.dtype != "uint8":
        return None
    if _dynamic(source, scale):
        return Rounded(source, *weight, Rounding("dynamic"))
    number, point = scalar(scale), zero.const
    if number is None or point is None or point.size == 0 or (point != point.reshape(-1)[0]).any():
        return None
    return Rounded(source, *weight, Rounding("static", number, int(point.reshape(-1)[0])))


def _unguarded(value: Value) -> Value:
    """x of where(isnan(x), number, x)."""
    if value.op != "where" or value.inputs[0] is None or value.inputs[2] is None:
        return value
    asked, x = value.inputs[0], value.inputs[2]
    return x if asked.op == "isnan" and asked.inputs[0] == x else value


def stored_weight(linear: Linear) -> tuple[np.ndarray, np.ndarray] | None:
    """int8 [in, out] and a scale for each output."""
    stored = linear.weight
    if stored.op != "dequantize_linear" or any(v is None or v.const is None for v in stored.inputs):
        return None
    data, scale, zero = (v.const for v in stored.inputs if v is not None)
    if data is None or scale is None or zero is None or data.dtype != np.int8 or zero.any():
        return None
    data = data.T if linear.transposed else data
    axis = stored.attrs["axis"] if scale.size > 1 else 0
    if scale.size > 1 and axis != (0 if linear.transposed else 1):
        return None
    return data, np.broadcast_to(scale.reshape(-1), (linear.out_features,)).astype(np.float32)


def _dynamic(source: Value, scale: Value) -> bool:
    """Whether a scale is DynamicQuantizeLinear's of this source (ONNX, opset 11)."""
    zero = const("zero", 0.0)
    high = commutative("maximum", op("max", var("high")), zero)
    low = commutative("minimum", op("min", var("low")), const(None, 0.0))
    spread = op("sub", high, low, name="spread")
    guarded = op("where", op("eq", spread, const(None, 0.0)), const(None, 255.0), spread)
    found = find(op("div", any_of("guard", yes=guarded, no=spread), const(None, 255.0)), scale)
    return isinstance(found, Match) and found["high"] == source and found["low"] == source

"""Relax operators under the view's canonical names. Source: tvm.relax.op of TVM 0.27.

A rule takes a `ViewCall` and gives (operator, operands, attributes), or None when this use has no canonical
spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ....ir.ops.symbolic import concatenated
from ....ir.values import END, GraphValue, sizes

Spec = tuple[str, Sequence[GraphValue | None], dict[str, Any]]


@dataclass(frozen=True)
class ViewCall:
    """One operator call. call: the expression. operands: its tensors. shape: of the result."""

    call: Any
    operands: Sequence[GraphValue]
    shape: tuple[int, ...] | None

    @property
    def attrs(self) -> Any:
        return self.call.attrs

    def ints(self, position: int) -> list[int]:
        """A tuple or shape argument."""
        argument = self.call.args[position]
        return [int(getattr(v, "value", v)) for v in getattr(argument, "fields", argument)]

    def axes(self, axes: Any, rank: int) -> tuple[int, ...]:
        """Non-negative axes; all of them where none is given."""
        given = range(rank) if axes is None else [int(a) for a in axes]
        return tuple(a + rank if a < 0 else a for a in given)

    @property
    def rank(self) -> int:
        return len(self.operands[0].shape or ())


Rule = Callable[[ViewCall], Spec | None]


def _same(name: str, **attrs: Any) -> Rule:
    return lambda c: (name, c.operands, dict(attrs))


def _layer_norm(c: ViewCall) -> Spec | None:
    axes = c.axes(c.attrs.axes, c.rank)
    scaled = bool(c.attrs.scale) and bool(c.attrs.center)
    return (
        ("layer_norm", c.operands, {"epsilon": float(c.attrs.epsilon), "axis": axes[0]}) if scaled else None
    )


def _rms_norm(c: ViewCall) -> Spec | None:
    if c.axes(c.attrs.axes, c.rank) != (c.rank - 1,):
        return None
    return "rms_norm", c.operands, {"epsilon": float(c.attrs.epsilon)}


def _reduce(name: str) -> Rule:
    def rule(c: ViewCall) -> Spec:
        attrs = {"axes": c.axes(c.attrs.axis, c.rank), "keepdim": bool(c.attrs.keepdims)}
        return name, c.operands, attrs

    return rule


def _permute(c: ViewCall) -> Spec:
    axes = c.attrs.axes
    return (
        "transpose",
        c.operands,
        {"perm": tuple(range(c.rank))[::-1] if axes is None else c.axes(axes, c.rank)},
    )


def _shaped(name: str) -> Rule:
    return lambda c: (name, c.operands[:1], {"shape": c.shape})


def _slice(c: ViewCall) -> Spec | None:
    """A slice that cuts one axis."""
    axes, begin, end = (c.ints(i) for i in (1, 2, 3))
    strides = c.ints(4) if len(c.call.args) > 4 else [1] * len(axes)
    shape, cuts = c.operands[0].shape, []
    for axis, first, last, step in zip(c.axes(axes, c.rank), begin, end, strides, strict=True):
        size = sizes(c.operands[0])[axis] if shape is not None else 0
        first, last = (max(0, min(v + size if v < 0 else v, size)) for v in (first, last))
        if (first, last, step) != (0, size, 1):
            cuts.append({"axis": axis, "start": first, "end": last, "step": step})
    if len(cuts) > 1:
        return None
    return "slice", c.operands[:1], cuts[0] if cuts else {"axis": 0, "start": 0, "end": END, "step": 1}


def _split(c: ViewCall) -> Spec:
    axis = c.axes([c.attrs.axis], c.rank)[0]
    size = sizes(c.operands[0])[axis]
    given = c.attrs.indices_or_sections
    if isinstance(given, int) or not hasattr(given, "__iter__"):
        parts = [size // int(given)] * int(given)
    else:
        bounds = [0, *(int(v) for v in given), size]
        parts = [b - a for a, b in pairwise(bounds)]
    return "split", c.operands, {"axis": axis, "sizes": tuple(parts)}


def _concat(c: ViewCall) -> Spec:
    return concatenated(c.operands, [x.shape for x in c.operands], c.axes([c.attrs.axis], c.rank)[0])


def _take(c: ViewCall) -> Spec:
    data, index = c.operands
    axis = 0 if c.attrs.axis is None else c.axes([c.attrs.axis], c.rank)[0]
    table = data.op == "const" and "float" in (data.dtype or "") and axis == 0
    return ("embedding", [data, index], {}) if table else ("gather", [data, index], {"axis": axis})


def _cast(c: ViewCall) -> Spec:
    to = str(c.attrs.dtype)
    return ("identity", c.operands, {}) if c.operands[0].dtype == to else ("cast", c.operands, {"to": to})


def _axes(name: str) -> Rule:
    def rule(c: ViewCall) -> Spec:
        rank = c.rank + (len(c.attrs.axis) if name == "unsqueeze" else 0)
        return name, c.operands, {"axes": tuple(sorted(c.axes(c.attrs.axis, rank)))}

    return rule


def _squeeze(c: ViewCall) -> Spec:
    if c.attrs.axis is not None:
        return _axes("squeeze")(c)  # type: ignore[return-value]
    shape = c.operands[0].shape or ()
    return "squeeze", c.operands, {"axes": tuple(i for i, d in enumerate(shape) if d == 1)}


def _dequantize(c: ViewCall) -> Spec:
    """What was rounded with the same scale and zero point just before is only rounding."""
    x, scale, zero = c.operands
    axis = {"axis": c.axes([c.attrs.axis], max(c.rank, 1))[0]}
    rounded = x.op == "quantize_linear" and (x.inputs[1], x.inputs[2]) == (scale, zero)
    return (
        ("fake_quantize", [x.inputs[0], scale, zero], axis)
        if rounded
        else ("dequantize_linear", c.operands, axis)
    )


RULES: dict[str, Rule] = {
    **{f"relax.{n}": _same(n) for n in "abs ceil cos erf exp floor isnan log round rsqrt sigmoid".split()},
    **{f"relax.{n}": _same(n) for n in "sign sin sqrt tanh where maximum minimum matmul".split()},
    **{
        f"relax.{n}": _same(canonical)
        for n, canonical in {
            "negative": "neg", "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div",
            "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
            "greater_equal": "ge", "logical_and": "and", "logical_or": "or", "logical_xor": "xor",
            "logical_not": "not", "power": "pow",
        }.items()
    },
    **{f"relax.{n}": _reduce(n) for n in ("mean", "sum", "max", "min")},
    "relax.nn.gelu": _same("gelu", approximate="none"),
    "relax.nn.gelu_tanh": _same("gelu", approximate="tanh"),
    "relax.nn.relu": _same("relu"),
    "relax.nn.silu": _same("silu"),
    "relax.nn.softmax": lambda c: ("softmax", c.operands, {"axis": c.axes([c.attrs.axis], c.rank)[0]}),
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.rms_norm": _rms_norm,
    "relax.permute_dims": _permute,
    "relax.reshape": _shaped("reshape"),
    "relax.flatten": _shaped("reshape"),
    "relax.broadcast_to": _shaped("expand"),
    "relax.expand_dims": _axes("unsqueeze"),
    "relax.squeeze": _squeeze,
    "relax.strided_slice": _slice,
    "relax.split": _split,
    "relax.concat": _concat,
    "relax.take": _take,
    "relax.quantize": _same("quantize_linear"),
    "relax.dequantize": _dequantize,
    "relax.astype": _cast,
    "relax.tril": lambda c: ("tril", c.operands, {"diagonal": int(c.call.args[1].value)}),
    "relax.triu": lambda c: ("triu", c.operands, {"diagonal": int(c.call.args[1].value)}),
}  # fmt: skip

"""FeedForward: two Linears around an activation, plain or gated (GLU: Shazeer, 2020, arXiv:2002.05202).

From every Linear, the element-wise operators above its input are gathered up to the Linears they read.
One such Linear: plain. Two halves, multiplied: gated. Which activation it is, is found by computing the
operators on a grid of numbers, so that every spelling of GELU is GELU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ops.elementwise import gelu, sigmoid
from ..ops.evaluate import Unknown, evaluate, scalar
from ..values import Value, View
from .base import FeedForward, Linear, Miss
from .walk import LAYOUT, bare, passes

GRID = np.linspace(-6, 6, 241)
TOLERANCE = 1e-4  # tanh-GELU differs from GELU by 4.7e-4 on the grid, x*sigmoid(1.702x) by 2e-2
WIDEST = 24  # operators that an activation takes at most

ACTIVATIONS: Mapping[str, np.ndarray] = {
    "relu": np.maximum(GRID, 0),
    "gelu": gelu(GRID, "none"),
    "gelu_tanh": gelu(GRID, "tanh"),
    "quick_gelu": GRID * sigmoid(1.702 * GRID),
    "silu": GRID * sigmoid(GRID),
    "relu2": np.maximum(GRID, 0) ** 2,
    "tanh": np.tanh(GRID),
    "sigmoid": sigmoid(GRID),
    "softplus": np.log1p(np.exp(GRID)),
    "mish": GRID * np.tanh(np.log1p(np.exp(GRID))),
    "elu": np.where(GRID > 0, GRID, np.expm1(GRID)),
    "hard_swish": GRID * np.clip(GRID + 3, 0, 6) / 6,
    "leaky_relu": np.where(GRID > 0, GRID, 0.01 * GRID),
    "identity": GRID,
}
ELEMENTWISE = {
    "add", "sub", "mul", "div", "pow", "sqrt", "neg", "abs", "exp", "log", "erf", "tanh", "sigmoid", "relu",
    "gelu", "silu", "softplus", "clip", "maximum", "minimum", "where", "gt", "lt", "ge", "le", "reciprocal",
    "sin", "cos",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Features of a Linear that an activation reads: all, or one piece of a split."""

    value: Value
    linear: Linear
    start: int
    stop: int


def feed_forwards(view: View, linears: Mapping[Value, Linear]) -> tuple[dict[Value, FeedForward], list[Miss]]:
    """Every FeedForward of a graph by its root, in topological order."""
    found: dict[Value, FeedForward] = {}
    missed: list[Miss] = []
    for down in linears.values():
        result = _feed_forward(down, linears)
        if isinstance(result, FeedForward):
            found[result.root] = result
        elif result is not None:
            missed.append(result)
    return found, missed


def _feed_forward(down: Linear, linears: Mapping[Value, Linear]) -> FeedForward | Miss | None:
    top = bare(down.input)
    if top.op not in ELEMENTWISE:
        return None
    gathered = _gather(top, linears)
    if gathered is None:
        return None
    body, parts = gathered
    if len(parts) == 1:
        up, gate = parts[0], None
        activation = _activation(top, up)
    elif len(parts) == 2:
        split = _gated(top, linears)
        if isinstance(split, str):
            return Miss("feed_forward", top.name, split)
        up, gate, activation = split
    else:
        return Miss(
            "feed_forward", top.name, f"{len(parts)} Linears meet before the last one, not one or two"
        )
    if activation == "identity":
        return None
    if activation is None:
        return Miss("feed_forward", top.name, "the activation is none that is known")
    if down.out_features != up.linear.in_features:
        return Miss(
            "feed_forward", down.root.name,
            f"{up.linear.in_features} features go in and {down.out_features} come out: a head, not a layer's",
        )  # fmt: skip
    if gate is not None and bare(gate.linear.input) != bare(up.linear.input):
        return Miss("feed_forward", top.name, "the gate reads another value than the other branch")
    linear_body = [*(gate.linear.body if gate else ()), *up.linear.body]
    return FeedForward(
        root=down.root,
        input=up.linear.input,
        up=up.linear,
        gate=gate.linear if gate else None,
        down=down,
        activation=activation,
        width=up.stop - up.start,
        up_features=(up.start, up.stop),
        gate_features=(gate.start, gate.stop) if gate else None,
        body=tuple(dict.fromkeys([*linear_body, *body, *down.body])),
    )


def _gather(top: Value, linears: Mapping[Value, Linear]) -> tuple[list[Value], list[Part]] | None:
    """The operators between a value and the parts of Linears it is computed from; None if it reads others."""
    body: list[Value] = []
    parts: dict[Value, Part] = {}
    stack, seen = [top], {top}
    while stack:
        value = stack.pop()
        part = _part(value, linears)
        if part is not None:
            parts[value] = part
            continue
        if scalar(value) is not None:
            continue
        if not (value.op in ELEMENTWISE or passes(value)) or len(body) == WIDEST:
            return None
        body.append(value)
        for operand in value.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return (body[::-1], list(parts.values())) if parts else None


def _part(value: Value, linears: Mapping[Value, Linear]) -> Part | None:
    if value in linears:
        return Part(value, linears[value], 0, linears[value].out_features)
    if value.op not in LAYOUT or value.inputs[0] is None:
        return None
    source = bare(value.inputs[0])
    linear = linears.get(source)
    if linear is None or source.shape is None:
        return None
    axis, attrs = linear.axis % len(source.shape), value.attrs
    if value.op == "split" and attrs["axis"] == axis and None not in attrs["sizes"]:
        start = sum(attrs["sizes"][: value.index])
        return Part(value, linear, start, start + attrs["sizes"][value.index])
    if value.op == "slice" and attrs["axis"] == axis and attrs["step"] == 1 and attrs["start"] is not None:
        stop = linear.out_features if attrs["end"] is None else min(attrs["end"], linear.out_features)
        return Part(value, linear, attrs["start"], stop)
    return None


def _activation(value: Value, part: Part) -> str | None:
    """The name of the function that takes a Linear's result to a value."""
    if part.value == value:
        return "identity"
    try:
        result = evaluate(value, {part.value: GRID}, budget=8 * WIDEST)
    except Unknown:
        return None
    if result.size != GRID.size:
        return None
    for name, wanted in ACTIVATIONS.items():
        if np.abs(result.reshape(-1) - wanted).max() < TOLERANCE:
            return name
    return None


def _gated(top: Value, linears: Mapping[Value, Linear]) -> tuple[Part, Part, str | None] | str:
    """(up, gate, activation) of a product of two parts, or what is wrong with it."""
    if top.op != "mul" or top.inputs[0] is None or top.inputs[1] is None:
        return f"two Linears meet in {top.op}, not in a product"
    left, right = bare(top.inputs[0]), bare(top.inputs[1])
    for plain, active in ((left, right), (right, left)):
        up = _part(plain, linears)
        gathered = _gather(active, linears)
        if up is None or gathered is None or len(gathered[1]) != 1:
            continue
        gate = gathered[1][0]
        activation = _activation(active, gate)
        if gate.value != up.value and activation != "identity":
            return up, gate, activation
    return "neither factor of the product is a Linear's own result: both branches are activated"

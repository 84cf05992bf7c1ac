"""Activations: element-wise functions of one Linear's result, or of some of its features.

Which one it is, is found by computing the operators on a grid of numbers, so that every spelling of GELU is
GELU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..ops.elementwise import gelu, sigmoid
from ..ops.evaluate import Unknown, evaluate, scalar
from ..values import Value, View
from .base import Linear
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
BIASED = {"com.microsoft::BiasGelu", "com.microsoft::FastGelu"}  # of (x, bias), of which FastGelu needs none
ELEMENTWISE = BIASED | {
    "add", "sub", "mul", "div", "pow", "sqrt", "neg", "abs", "exp", "log", "erf", "tanh", "sigmoid", "relu",
    "gelu", "silu", "softplus", "clip", "maximum", "minimum", "where", "gt", "lt", "ge", "le", "reciprocal",
    "sin", "cos", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Features of a Linear that an activation reads: all, or one piece of a split.

    bias: what the activation's own operator adds to them first (a fused GELU), as wide as they are.
    """

    value: Value
    linear: Linear
    start: int
    stop: int
    bias: Value | None = None


@dataclass(frozen=True)
class Activation:
    """value = f(part.value + part.bias), f of that name in ACTIVATIONS. body: the operators between, value
    included."""

    name: str
    part: Part
    value: Value
    body: tuple[Value, ...]


def activations(view: View, linears: Mapping[Value, Linear]) -> list[Activation]:
    """The widest ones of a graph, in topological order: the sigmoid inside of a SiLU is none."""
    found: list[Activation] = []
    inside: set[Value] = set()
    for value in reversed(view.values):
        if value.op not in ELEMENTWISE or value in inside:
            continue
        gathered = gather(value, linears)
        if gathered is None or len(gathered[1]) != 1:
            continue
        body, (part,) = gathered
        name = named(value, part)
        if name is not None and name != "identity":
            found.append(Activation(name, part, value, tuple(body)))
            inside.update(body)
    return found[::-1]


def gather(top: Value, linears: Mapping[Value, Linear]) -> tuple[list[Value], list[Part]] | None:
    """The operators between a value and the parts of Linears it is computed from; None if it reads others."""
    body: list[Value] = []
    parts: dict[Value, Part] = {}
    stack, seen = [top], {top}
    while stack:
        value = stack.pop()
        part = _biased(value, linears) or part_of(value, linears)
        if part is not None:
            if parts.setdefault(part.value, part) != part:
                return None  # read with a bias and without
            if part.bias is not None:
                body.append(value)
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


def _biased(value: Value, linears: Mapping[Value, Linear]) -> Part | None:
    """What a fused GELU reads together with the bias that it adds."""
    if value.op not in BIASED or len(value.inputs) < 2:
        return None
    x, bias = value.inputs[:2]
    part = None if x is None else part_of(bare(x), linears)
    if part is None or bias is None or bias.op != "const" or part.linear.axis != -1:
        return None
    return replace(part, bias=bias)


def part_of(value: Value, linears: Mapping[Value, Linear]) -> Part | None:
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


def named(value: Value, part: Part) -> str | None:
    """The name of the function that takes a Linear's result to a value."""
    if part.value == value:
        return "identity"
    known = {part.value: GRID} | ({part.bias: np.zeros(1)} if part.bias is not None else {})
    try:
        result = evaluate(value, known, budget=8 * WIDEST)
    except Unknown:
        return None
    if result.size != GRID.size:
        return None
    for name, wanted in ACTIVATIONS.items():
        if np.abs(result.reshape(-1) - wanted).max() < TOLERANCE:
            return name
    return None

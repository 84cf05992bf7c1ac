"""Linear layers that bfloat16 can take, in either dialect, grouped by the activation that enters them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....ir.blocks.base import Linear
from ....ir.blocks.linear import linears
from ....ir.blocks.walk import Statics
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view

NARROWEST = 16  # features: below, rounding a row costs what the product gains
_PRODUCTS = ("linear", "matmul", "conv1d")


@dataclass(frozen=True)
class Layer:
    """name: of its result. product: the matmul or linear. weight: the constant; it may be transposed on the
    way to the product."""

    name: str
    product: Value
    weight: Value


@dataclass(frozen=True)
class Group:
    """One activation, rounded once, and the layers it enters (q, k and v share theirs)."""

    activation: Value
    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return self.layers[0].name


def find(program: Program) -> tuple[list[Group], list[str]]:
    """Groups in topological order, and one sentence for every layer that stays in float32."""
    groups: dict[Any, tuple[Value, list[Layer]]] = {}
    misses = []
    for linear in linears(view(program), Statics()).values():
        product = next(value for value in linear.body if value.op in _PRODUCTS)
        x, name = product.inputs[0], str(linear.root.name)
        assert x is not None
        if computed_in_bfloat16(x):
            continue
        if reason := _unfit(linear, product):
            misses.append(f"{name}: stays in float32, {reason}")
            continue
        groups.setdefault(x.native, (x, []))[1].append(Layer(name, product, linear.weight))
    return [Group(x, tuple(layers)) for x, layers in groups.values()], misses


def computed_in_bfloat16(x: Value) -> bool:
    """Whether an activation was rounded to bfloat16 and cast back."""
    return x.op == "cast" and x.inputs[0] is not None and x.inputs[0].dtype == "bfloat16"


def _unfit(linear: Linear, product: Value) -> str:
    """Why a layer cannot be computed in bfloat16; empty if it can."""
    if linear.axis != -1 or linear.groups != 1:
        return "a convolution: the product in bfloat16 takes features on the last axis"
    if linear.weight.op != "const":
        return f"its weight is computed by {linear.weight.op} in the graph: run fold-constants first"
    if (dtype := product.dtype or linear.weight.dtype) != "float32":
        return f"it computes in {dtype}"
    if linear.weight.dtype not in ("float32", "bfloat16"):
        return f"its weight is stored in {linear.weight.dtype}"
    if min(linear.in_features, linear.out_features) < NARROWEST:
        return f"{linear.in_features} to {linear.out_features} features are too few to gain from bfloat16"
    return ""

"""Products that bfloat16 can take, in either dialect: linear layers, grouped by the activation that enters
them, and those of attentions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....ir.blocks import recognise
from ....ir.blocks.base import Attention, Linear
from ....ir.blocks.scores import times
from ....ir.blocks.walk import LAYOUT, passes
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from .factors import narrow, rounded_at

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

    @property
    def products(self) -> tuple[Value, ...]:
        return tuple(layer.product for layer in self.layers)

    @property
    def key(self) -> tuple[str, ...]:
        """Its weights, by name."""
        return tuple(str(layer.weight.name) for layer in self.layers)


@dataclass(frozen=True)
class Core:
    """An attention's products: of queries and keys, and of probabilities and values. name: of its context."""

    name: str
    products: tuple[Value, Value]
    key: tuple[str, ...]


def find(program: Program, which: str = "all") -> tuple[list[Group | Core], list[str]]:
    """Groups in topological order, then attentions, and one sentence for every product that stays in float32.

    Args:
        which: "linear" or "attention" for only those.
    """
    blocks = recognise(view(program))
    groups: dict[Any, tuple[Value, list[Layer]]] = {}
    misses = []
    for linear in blocks.linear if which != "attention" else ():
        product = next(value for value in linear.body if value.op in _PRODUCTS)
        x, name = product.inputs[0], str(linear.root.name)
        assert x is not None
        if narrow(x):
            continue
        if reason := _unfit(linear, product):
            misses.append(f"{name}: stays in float32, {reason}")
            continue
        groups.setdefault(x.native, (x, []))[1].append(Layer(name, product, linear.weight))
    found: list[Group | Core] = [Group(x, tuple(layers)) for x, layers in groups.values()]
    for attention in blocks.attention if which != "linear" else ():
        if reason := _unfit_attention(attention):
            misses.append(f"{attention.context.name}: its attention stays in float32, {reason}")
            continue
        assert attention.scored is not None
        assert attention.weighed is not None
        products = (attention.scored, attention.weighed)
        if not all(narrow(rounded_at(product, x)[0]) for product in products for x in product.inputs if x):
            weights = (str(one.weight.name) for one in (attention.q, attention.k, attention.v) if one)
            found.append(Core(str(attention.context.name), products, (*weights, "attention")))
    return found, misses


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


def _unfit_attention(attention: Attention) -> str:
    """Why an attention cannot be computed in bfloat16; empty if it can."""
    scored, weighed = attention.scored, attention.weighed
    if scored is None or weighed is None:
        return "it is one operator: run to-onnx first, which writes it out"
    if other := {scored.op, weighed.op} - {"matmul"}:
        return f"its products are written as {', '.join(sorted(other))}"
    if _cached(attention.key) or _cached(attention.value):
        return "its keys and values come from a cache, all of which every call would round anew"
    if attention.sinks is not None or attention.gate is not None:
        return "no kernel computes its softmax"
    if (dtype := weighed.dtype or "float32") != "float32":
        return f"it computes in {dtype}"
    return ""


def _cached(value: Value) -> bool:
    """Whether keys or values stand behind others that come in from outside."""
    source = _source(value)
    return source.op == "concat" and any(_source(each).op == "input" for each in source.inputs if each)


def _source(value: Value) -> Value:
    """What a value is, but for its axes and numbers that it is multiplied by."""
    while True:
        number = times(value)
        following = number[1] if number else value.inputs[0] if passes(value) or value.op in LAYOUT else None
        if following is None:
            return value
        value = following

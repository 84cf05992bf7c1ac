"""GELU however it is spelled: x Phi(x) (Hendrycks and Gimpel, 2016, arXiv:1606.08415), by erf or by tanh.

A spelled GELU is found from its erf or tanh outwards: upwards to the value x that everything around it is
computed from, downwards to the value where x and the erf or tanh of it have met. What lies between is
computed on a grid of numbers and compared, so that every order of its factors is GELU and no wrong number is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ....ir.blocks.activation import ELEMENTWISE
from ....ir.blocks.walk import passes
from ....ir.ops.elementwise import gelu
from ....ir.ops.evaluate import Unknown, evaluate, scalar
from ....ir.values import Value

Approximate = Literal["none", "tanh"]

_GRID = np.linspace(-10, 10, 401)
_WANTED: dict[Approximate, np.ndarray] = {"none": gelu(_GRID, "none"), "tanh": gelu(_GRID, "tanh")}
_TOLERANCE = 1e-5  # the two GELUs are 4.7e-4 apart on the grid, and constants rounded to float32 1e-6
_STEPS = 6  # from an erf or tanh down to the GELU's last operator
_ABOVE = 12  # values above an erf or tanh that may be x


@dataclass(frozen=True)
class Gelu:
    """root = GELU(input). approximate: "none" (erf) or "tanh". body: what is computed inside, root last."""

    root: Value
    input: Value
    approximate: Approximate
    body: tuple[Value, ...]

    @property
    def spelled(self) -> bool:
        return len(self.body) > 1


def gelu_at(value: Value) -> Gelu | str | None:
    """The GELU around a gelu, erf or tanh; why it is none though it looks like one; or None.

    Args:
        value: any value; only those three operators are looked at.
    """
    if value.op == "gelu" and value.inputs[0] is not None:
        return Gelu(value, value.inputs[0], value.attrs["approximate"], (value,))
    if value.op not in ("erf", "tanh") or value.inputs[0] is None:
        return None
    nearest: tuple[float, Value] | None = None
    for root in _below(value):
        for x in _above(value.inputs[0]):
            body = _between(root, x, value)
            distances = {} if body is None else _distances(root, x)
            for approximate, distance in distances.items():
                if distance < _TOLERANCE and body is not None:
                    kept = _escaping(body)
                    if kept is not None:
                        return f"'{kept.name}' inside the GELU is used elsewhere too"
                    return Gelu(root, x, approximate, body)
                if nearest is None or distance < nearest[0]:
                    nearest = distance, x
    if nearest is None:
        return None
    off, x = nearest
    return f"{value.op} of '{x.name}' meets '{x.name}' again, but is off by {off:.2g} from GELU"


def _below(value: Value) -> Iterator[Value]:
    """The values that a value alone goes into, one after another."""
    for _ in range(_STEPS):
        users = list(dict.fromkeys(value.users))
        if len(users) != 1 or not (users[0].op in ELEMENTWISE or passes(users[0])):
            return
        value = users[0]
        yield value


def _above(value: Value) -> Iterator[Value]:
    """A value and what it is computed from, nearest first."""
    found = {value: None}
    queue = [value]
    while queue and len(found) <= _ABOVE:
        value = queue.pop(0)
        if scalar(value) is not None:
            continue
        yield value
        for operand in value.inputs if value.op in ELEMENTWISE or passes(value) else ():
            if operand is not None and operand not in found:
                found[operand] = None
                queue.append(operand)


def _between(root: Value, x: Value, inner: Value) -> tuple[Value, ...] | None:
    """The operators from x to root, if root is computed from x and numbers alone, and from x both inside
    `inner` and beside it."""
    whole, inside = _cone(root, x), _cone(inner, x)
    if whole is None or inside is None:
        return None
    beside = any(x in value.inputs for value in whole if value not in inside)
    return tuple(whole) if beside and inner in whole else None


def _cone(root: Value, x: Value) -> list[Value] | None:
    """The operators from x to root, which is last; None if it is computed from anything else."""
    inside: dict[Value, None] = {}
    stack = [root]
    while stack:
        value = stack.pop()
        if value == x or value in inside or scalar(value) is not None:
            continue
        if not (value.op in ELEMENTWISE or passes(value)) or len(inside) > 2 * _ABOVE:
            return None
        inside[value] = None
        stack += [operand for operand in value.inputs if operand is not None]
    return list(inside)[::-1]


def _distances(root: Value, x: Value) -> dict[Approximate, float]:
    """How far root, as a function of x, is from either GELU; nothing where it cannot be computed."""
    try:
        result = evaluate(root, {x: _GRID}).reshape(-1)
    except Unknown:
        return {}
    if result.size != _GRID.size:
        return {}
    return {name: float(np.abs(result - wanted).max()) for name, wanted in _WANTED.items()}


def _escaping(body: tuple[Value, ...]) -> Value | None:
    """A value inside, other than the last, that something outside uses."""
    within = set(body)
    inner = (value for value in body if value != body[-1])
    return next(
        (v for v in inner if v.native.is_graph_output() or any(user not in within for user in v.users)), None
    )

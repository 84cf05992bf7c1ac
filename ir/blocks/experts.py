"""Mixtures of experts: feed-forwards of which a router chooses some for each token (Shazeer et al., 2017,
arXiv:1701.06538).

Anchored on products of which each row has a matrix of its own, one of several: rows that are sorted by expert
and multiplied group by group (in one operator, or as slices of the rows put together again), a matrix looked
up for every row, or all experts for all tokens. Two of them, one over the activation of the other, are the
experts. What multiplies their result is followed back to the choice of the largest of a projection's results:
the router.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ops.evaluate import Unknown, evaluate, scalar
from ..values import Value, View
from .activation import ACTIVATIONS, ELEMENTWISE, GRID, TOLERANCE, WIDEST
from .base import Experts, Linear, Miss
from .routers import FURTHEST, LOOKUPS, router
from .walk import Statics, bare, passes, users

_GROUPED = "grouped_mm"
_PIECES = {"slice", "split", "select"}
_TOGETHER = {"sum", "reshape", "index", "gather", "transpose", "unsqueeze", "squeeze"}


@dataclass(frozen=True)
class Grouped:
    """A product of which each row has one of several matrices. root: with the bias added."""

    root: Value
    input: Value
    weights: tuple[Value, ...]
    experts: int
    wide: int
    body: tuple[Value, ...]


def experts(
    view: View, static: Statics, linears: Mapping[Value, Linear]
) -> tuple[dict[Value, Experts], list[Miss]]:
    """Every mixture of experts of a graph by its root, in topological order."""
    products: dict[Value, Grouped] = {}
    for value in view.values:
        product = _grouped(value, static, linears)
        if product is not None:
            products[product.root] = product
    found: dict[Value, Experts] = {}
    missed: list[Miss] = []
    inner: set[Value] = set()
    for down in reversed(products.values()):
        gathered = None if down.root in inner else _gather(down.input, products)
        if gathered is None:
            continue
        inner.update(up.root for _, up in gathered[1].values())
        result = _mixture(down, *gathered, static, linears)
        if isinstance(result, Miss):
            missed.append(result)
        else:
            inner.update(result.body)
            found[result.root] = result
    return dict(reversed(found.items())), missed


def _grouped(value: Value, static: Statics, linears: Mapping[Value, Linear]) -> Grouped | None:
    operands = [v for v in value.inputs if v is not None]
    if _GROUPED in value.op and len(operands) > 2 and static(operands[1]):
        return _product(value, operands[0], operands[1], static)
    if value.op == "concat" and value.attrs["axis"] == 0:
        return _pieces(value, operands, static, linears)
    if value.op == "matmul" and len(operands) == 2:
        for x, weight in (operands, operands[::-1]):
            turned = _moved(weight)
            looked_up = turned.op in LOOKUPS and len(turned.inputs) == 2 and turned.attrs.get("axis", 0) == 0
            matrices = turned.inputs[0] if looked_up else turned
            if matrices is not None and len(matrices.shape or ()) == 3 and static(matrices) and not static(x):
                return _product(value, x, matrices, static)
    return None


def _product(value: Value, x: Value, weight: Value, static: Statics) -> Grouped | None:
    shape, wide = weight.shape, value.shape
    if shape is None or wide is None or len(shape) != 3 or not isinstance(shape[0], int) or shape[0] < 2:
        return None
    width = wide[-1] if wide[-1] != 1 else wide[-2]
    if not isinstance(width, int):
        return None
    steps = _finished(value, static)
    return Grouped(steps[-1], _moved(x), (_stored(weight),), shape[0], width, tuple(steps))


def _finished(value: Value, static: Statics) -> list[Value]:
    """A product with the moves of single rows and a bias for each row's expert that follow it."""
    steps = [value]
    while len(steps[-1].users) == 1:
        root, user = steps[-1], steps[-1].users[0]
        others = [v for v in user.inputs if v is not None and v != root]
        biased = user.op == "add" and any(_of_rows(v, static) for v in others)
        if user.op != "squeeze" and not biased:
            break
        steps.append(user)
    return steps


def _of_rows(value: Value, static: Statics) -> bool:
    """Whether a value is a constant, or rows of one that are looked up: a bias for each row's expert."""
    value = _moved(value)
    table = value.inputs[0] if value.op in LOOKUPS or "GatherND" in value.op else value
    return table is not None and static(table)


def _pieces(
    value: Value, parts: list[Value], static: Statics, linears: Mapping[Value, Linear]
) -> Grouped | None:
    """Slices of the same rows, each through a Linear of its own, put together again."""
    found = [linears.get(part) for part in parts]
    if len(found) < 2 or any(linear is None for linear in found):
        return None
    pieces = [linear for linear in found if linear is not None]
    inputs = [bare(linear.input) for linear in pieces]
    rows = {bare(x.inputs[0]) for x in inputs if x.op == "slice" and x.inputs[0] is not None}
    computed = all(x.op == "slice" and x.attrs["axis"] == 0 and x.attrs["end"] is None for x in inputs)
    weights = tuple(linear.weight for linear in pieces)
    widths = {linear.out_features for linear in pieces}
    if len(rows) != 1 or not computed or len(set(weights)) < len(weights) or len(widths) != 1:
        return None
    body = [v for linear, x in zip(pieces, inputs, strict=True) for v in (x, *linear.body)]
    steps = _finished(value, static)
    return Grouped(steps[-1], rows.pop(), weights, len(weights), widths.pop(), (*body, *steps))


def _mixture(
    down: Grouped,
    body: list[Value],
    parts: Mapping[Value, tuple[Value, Grouped]],
    static: Statics,
    linears: Mapping[Value, Linear],
) -> Experts | Miss:
    if {up.experts for _, up in parts.values()} != {down.experts}:
        return Miss("experts", down.root.name, "the products before its activation are of another number")
    ups = list(dict.fromkeys(up for _, up in parts.values()))
    if len(ups) > 2 or len(parts) > 2:
        return Miss(
            "experts", down.root.name, f"{len(parts)} parts of products meet before it, not one or two"
        )
    activation, gated = _activation(bare(down.input), list(parts))
    width = ups[0].wide if len(ups) == len(parts) else ups[0].wide // 2
    chooses = router(down.root, down.experts, static, linears)
    if isinstance(chooses, str):
        return Miss("experts", down.root.name, chooses)
    root, after = _together(chooses.root)
    inside = [*(v for up in ups for v in up.body), *body, *down.body, *chooses.body, *after]
    return Experts(
        root=root,
        input=chooses.linear.input,
        router=chooses,
        experts=down.experts,
        up=tuple(weight for up in ups for weight in up.weights),
        down=down.weights,
        activation=activation,
        gated=gated,
        width=width,
        body=tuple(dict.fromkeys(inside)),
    )


def _gather(
    top: Value, products: Mapping[Value, Grouped]
) -> tuple[list[Value], dict[Value, tuple[Value, Grouped]]] | None:
    """The operators between a value and the parts of products that it is computed from."""
    body: list[Value] = []
    parts: dict[Value, tuple[Value, Grouped]] = {}
    stack, seen = [_moved(top)], {top}
    while stack:
        value = bare(stack.pop())
        source = bare(value.inputs[0]) if value.op in _PIECES and value.inputs[0] is not None else value
        if source in products:
            parts[value] = (value, products[source])
            continue
        if scalar(value) is not None:
            continue
        if value.op not in ELEMENTWISE and not passes(value):
            return None
        if len(body) == WIDEST:
            return None
        body.append(value)
        for operand in value.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return (body[::-1], parts) if parts and body else None


def _activation(top: Value, parts: list[Value]) -> tuple[str, bool]:
    """(its name, whether it gates): "other" for what has none, as where both branches are clipped."""
    top = _moved(top)
    if len(parts) == 1:
        return _named(top, parts[0]), False
    factors = [bare(v) for v in top.inputs if v is not None] if top.op == "mul" else []
    names = [next((n for p in parts if (n := _named(f, p)) != "other"), "other") for f in factors]
    if len(names) == 2 and "identity" in names:
        return next((name for name in names if name != "identity"), "identity"), True
    return "other", True


def _named(value: Value, part: Value) -> str:
    if bare(value) == bare(part):
        return "identity"
    try:
        result = evaluate(value, {part: GRID}, budget=8 * WIDEST)
    except Unknown:
        return "other"
    if result.size != GRID.size:
        return "other"
    close = (n for n, wanted in ACTIVATIONS.items() if abs(result.reshape(-1) - wanted).max() < TOLERANCE)
    return next(close, "other")


def _together(value: Value) -> tuple[Value, list[Value]]:
    """Where the experts' results of a token are one again: (the sum, its steps)."""
    steps: list[Value] = []
    while len(steps) < FURTHEST:
        following = list(users(value))
        step = following[0] if len(following) == 1 else None
        if step is None or not (
            step.op in _TOGETHER
            or "index_add" in step.op
            or "scatter" in step.op.lower()
            or "Gather" in step.op
        ):
            break
        value = step
        steps.append(step)
    return value, steps


def _moved(value: Value) -> Value:
    """A value before moves of its axes."""
    value = bare(value)
    while value.op in ("unsqueeze", "squeeze", "transpose") and value.inputs[0] is not None:
        value = bare(value.inputs[0])
    return value


def _stored(weight: Value) -> Value:
    weight = bare(weight)
    while weight.op == "transpose" and weight.inputs[0] is not None:
        weight = bare(weight.inputs[0])
    return weight

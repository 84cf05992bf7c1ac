"""FeedForward: two Linears around an activation, plain or gated (GLU: Shazeer, 2020, arXiv:2002.05202).

From every Linear, the element-wise operators above its input are gathered up to the Linears they read.
One such Linear: plain. Two halves, multiplied: gated.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..values import Value, View
from .activation import ELEMENTWISE, Part, gather, named, part_of
from .base import FeedForward, Linear, Miss
from .low_rank import LowRank
from .walk import bare, passes


def feed_forwards(view: View, linears: Mapping[Value, Linear]) -> tuple[dict[Value, FeedForward], list[Miss]]:
    """Every FeedForward of a graph by its root, in topological order."""
    found: dict[Value, FeedForward] = {}
    missed: list[Miss] = []
    pairs = LowRank(view, linears)
    for down in linears.values():
        result = _feed_forward(down, linears, pairs)
        if isinstance(result, FeedForward):
            found[result.root] = result
        elif result is not None:
            missed.append(result)
    return found, missed


def _feed_forward(down: Linear, linears: Mapping[Value, Linear], pairs: LowRank) -> FeedForward | Miss | None:
    top = bare(down.input)
    if top.op not in ELEMENTWISE:
        return None
    gathered = gather(top, linears)
    if gathered is None:
        return None
    body, parts = gathered
    if len(parts) == 1:
        up, gate = parts[0], None
        activation = named(top, up)
    elif len(parts) == 2:
        split = _gated(top, linears)
        if isinstance(split, str):
            return Miss("feed_forward", top.name, split)
        up, gate, activation = split
    elif all(value.op == "add" or passes(value) for value in body):
        return None  # a stream, with nothing but sums
    else:
        return Miss(
            "feed_forward", top.name, f"{len(parts)} Linears meet before the last one, not one or two"
        )
    if activation == "identity":
        return None
    if activation is None:
        return Miss("feed_forward", top.name, "the activation is none that is known")
    first, last = pairs.before(up.linear) or up.linear, pairs.after(down) or down
    if last.out_features != first.in_features:
        return Miss(
            "feed_forward", down.root.name,
            f"{first.in_features} features go in and {last.out_features} come out: a head, not a layer's",
        )  # fmt: skip
    if gate is not None and bare(pairs.source(gate.linear)) != bare(first.input):
        return Miss("feed_forward", top.name, "the gate reads another value than the other branch")
    linear_body = [*(gate.linear.body if gate else ()), *first.body, *up.linear.body]
    return FeedForward(
        root=last.root,
        input=first.input,
        up=up.linear,
        gate=gate.linear if gate else None,
        down=down,
        activation=activation,
        width=up.stop - up.start,
        up_features=(up.start, up.stop),
        gate_features=(gate.start, gate.stop) if gate else None,
        body=tuple(dict.fromkeys([*linear_body, *body, *down.body, *last.body])),
    )


def _gated(top: Value, linears: Mapping[Value, Linear]) -> tuple[Part, Part, str | None] | str:
    """(up, gate, activation) of a product of two parts, or what is wrong with it."""
    if top.op != "mul" or top.inputs[0] is None or top.inputs[1] is None:
        return f"two Linears meet in {top.op}, not in a product"
    left, right = bare(top.inputs[0]), bare(top.inputs[1])
    for plain, active in ((left, right), (right, left)):
        up = part_of(plain, linears)
        gathered = gather(active, linears)
        if up is None or gathered is None or len(gathered[1]) != 1:
            continue
        gate = gathered[1][0]
        activation = named(active, gate)
        if gate.value != up.value and activation != "identity":
            return up, gate, activation
    return "neither factor of the product is a Linear's own result: both branches are activated"

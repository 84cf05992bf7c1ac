"""What one dense kernel can do in a go: a Linear, its activation, a residual sum and the norm of that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ....ir.blocks.base import Blocks, FeedForward, Linear, Norm
from ....ir.blocks.walk import bare, users
from ....ir.values import Value
from ..kernels.vector import ACTIVATIONS
from .coded import coded
from .integers import stored_weight

Halves = tuple[tuple[int, int], tuple[int, int]]
Gated = tuple[str, Value, Linear, Halves | None]


@dataclass(frozen=True)
class Chain:
    """linear: where it begins. activation, residual, norm: what follows, None where nothing does.

    gate: the Linear whose activated result multiplies this one's (GLU). halves: (start, stop) of the features
    that are this one's and the gate's, where one Linear gives both.
    total: the value before the norm. root: the last value. stream: whether `total` is read elsewhere too.
    """

    linear: Linear
    gate: Linear | None
    halves: Halves | None
    activation: str | None
    residual: Value | None
    norm: Norm | None
    total: Value
    root: Value
    stream: bool


def chains(
    blocks: Blocks, outputs: Iterable[Value], apart: set[Linear], few: Collection[Value] = ()
) -> list[Chain]:
    """A chain for every Linear that a kernel can run, each as long as its values are read by nobody else.

    Args:
        outputs: of the graph: they are read.
        apart: Linears whose result another kernel takes as it is.
        few: roots of Linears whose kernel never holds a row, and so takes no norm behind it.
    """
    activated: dict[Value, tuple[str, Value]] = {}  # by the root of a plain `up`
    gated: dict[Value, Gated] = {}  # by the root of `up`
    returned = set(outputs)
    for feed in blocks.feed_forward:
        if feed.activation not in ACTIVATIONS:
            continue
        inner, whole = bare(feed.down.input), _whole(feed.up, feed.up_features)
        if feed.gate is feed.up and feed.gate_features is not None and _halved(feed, returned):
            gated[feed.up.root] = (feed.activation, inner, feed.up, (feed.up_features, feed.gate_features))
        elif feed.gate is None and whole:
            activated[feed.up.root] = (feed.activation, inner)
        elif feed.gate is not None and whole and _whole(feed.gate, feed.gate_features):
            gated[feed.up.root] = (feed.activation, inner, feed.gate, None)
    norms = {bare(norm.input): norm for norm in blocks.norm}
    gates = {id(gate) for _, _, gate, halves in gated.values() if halves is None}
    return [
        _chain(linear, activated, gated, {} if linear.root in few else norms, returned, linear in apart)
        for linear in blocks.linear
        if fits(linear) and id(linear) not in gates
    ]


def fits(linear: Linear) -> bool:
    """Whether a dense kernel can run it: features last, one matrix for all of them."""
    plain = linear.axis == -1 and linear.groups == 1 and (linear.bias is None or linear.bias.op == "const")
    stored = linear.weight.const is not None or stored_weight(linear) or coded(linear)
    return plain and bool(stored)


def _whole(linear: Linear, features: tuple[int, int] | None) -> bool:
    return features == (0, linear.out_features)


def _halved(feed: FeedForward, returned: set[Value]) -> bool:
    """Whether a feed-forward whose gate is half of its Linear reads those halves alone."""
    halves = list(users(feed.up.root))
    alone = all(half.op in ("split", "slice") and half not in returned for half in halves)
    body = set(feed.body)
    return alone and feed.up.root not in returned and all(u in body for half in halves for u in users(half))


def _chain(
    linear: Linear,
    activated: Mapping[Value, tuple[str, Value]],
    gated: Mapping[Value, Gated],
    norms: Mapping[Value, Norm],
    returned: set[Value],
    apart: bool,
) -> Chain:
    value, activation, gate, halves, residual = linear.root, None, None, None, None
    if value in gated and (gated[value][3] or not _read(value, gated[value][1], returned)):
        activation, value, gate, halves = gated[value]
    elif value in activated and value not in returned:
        activation, value = activated[value]
    following = [] if apart or value in returned else list(dict.fromkeys(users(value)))
    if len(following) == 1 and following[0].op == "add" and following[0].shape == value.shape:
        others = [v for v in following[0].inputs if v is not None and bare(v) != value]
        if len(others) == 1 and others[0].shape == value.shape and others[0].op != "const":
            residual, value = others[0], following[0]
    norm = None if apart else norms.get(value)
    if norm is None or not _constant(norm):
        return Chain(linear, gate, halves, activation, residual, None, value, value, False)
    elsewhere = value in returned or any(user not in norm.body for user in users(value))
    if elsewhere and residual is None:
        return Chain(linear, gate, halves, activation, None, None, value, value, False)
    return Chain(linear, gate, halves, activation, residual, norm, value, norm.root, elsewhere)


def _read(value: Value, by: Value, returned: set[Value]) -> bool:
    """Whether anybody but `by` reads a value."""
    return value in returned or any(user != by for user in users(value))


def _constant(norm: Norm) -> bool:
    return all(v is None or v.op == "const" for v in (norm.weight, norm.bias))

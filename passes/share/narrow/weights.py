"""The weights of one layer made narrow, before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch.fx import GraphModule

from ....ir.blocks.activation import Part
from ....ir.blocks.base import Linear
from ....ir.fx.graph import attribute
from .sites import Reads, Site
from .start import Affine, Seen, apart, by_weights, principal, scored, scores, weighed

NONE = -1  # the neuron of the original that a new one is
FIRST = 1e-20  # what such a neuron gives, by the others: zeros would count as pruned, and stay so


@dataclass(frozen=True)
class Sizes:
    """width: of the bottleneck. count, inner: of its feed-forwards, and what each one's activation is of.
    reads: what attention reads."""

    width: int
    count: int
    inner: int
    reads: Reads


@dataclass(frozen=True)
class Given:
    """What texts give a layer: [X 1]^T [X 1] of what its projections and its feed-forward read, and the mean
    square of what its activation gives, by neuron."""

    wide: np.ndarray
    middle: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Stack:
    """One of the feed-forwards. neurons: (inner,) of the original. parts: products that its activation reads.
    wanted: the original's, of the wide value."""

    neurons: np.ndarray
    parts: tuple[Affine, ...]
    wanted: tuple[Affine, ...]
    down: Affine


@dataclass(frozen=True)
class Narrow:
    """basis: (stream, width), of the bottleneck's features. into, out: the two ends. looked: the bottleneck
    that queries and keys share. qkv: the projections, features in the order of heads; wanted: what they come
    near to, of the wide value. o: what joins the heads."""

    basis: np.ndarray
    into: Affine
    looked: Affine | None
    qkv: tuple[Affine, Affine, Affine]
    wanted: tuple[Affine, Affine, Affine]
    o: Affine
    stacks: tuple[Stack, ...]
    out: Affine


def stored(gm: GraphModule, linear: Linear) -> Affine:
    """A product's numbers, float64."""
    weight = attribute(gm, str(linear.weight.native.target)).detach().double()
    weight = weight if linear.transposed else weight.T
    bias = np.zeros(len(weight))
    if linear.bias is not None:
        bias = attribute(gm, str(linear.bias.native.target)).detach().double().numpy()
    return Affine(weight.numpy(), bias)


def shared(mine: Narrow, other: Narrow, alike: Sequence[bool]) -> Narrow:
    """With another layer's numbers where both had the same weights.

    Args:
        alike: whether those of the attention were, and those of the feed-forward.
    """
    if alike[0]:
        same = other.looked, other.qkv, other.wanted, other.o
        mine = replace(mine, looked=same[0], qkv=same[1], wanted=same[2], o=same[3])
    return replace(mine, stacks=other.stacks) if alike[1] else mine


def narrow(
    gm: GraphModule,
    site: Site,
    parts: Sequence[Part],
    sizes: Sizes,
    given: Given | None,
    seed: int,
    basis: np.ndarray | None = None,
) -> Narrow:
    """Those of a site of a graph.

    Args:
        parts: what its activation reads. given: by texts; None without them. basis: of the bottleneck, where
            a layer with which it shares weights has one.
    """
    attention, ff = site.attention, site.feed_forward
    wide = Seen.of(given.wide if given else None, site.width)
    middle = Seen.of(given.middle if given else None, site.width)
    sides = [stored(gm, one) for one in (attention.q, attention.k, attention.v) if one is not None]
    ups = [stored(gm, part.linear).of(np.arange(part.start, part.stop)) for part in parts]
    assert attention.o is not None
    o, down = stored(gm, attention.o), stored(gm, ff.down)
    by_mean = site.middle.kind == "layer_norm"
    if basis is None:
        read = [*(one.weight for one in (*sides, *ups)), o.weight.T, down.weight.T]
        basis = principal([wide, middle], sizes.width) if given else by_weights(read, sizes.width)
        basis = apart(basis) if by_mean else basis
    *wanted, joined = _heads(site, sides, o, wide, basis, sizes.width // attention.heads)
    looked, qkv = None, list(wanted)
    zeros = np.zeros(sizes.width)
    if sizes.reads == "shared":
        shared = scored(np.concatenate([wanted[0].weight, wanted[1].weight]), wide, sizes.width)
        shared = apart(shared) if by_mean else shared
        looked = Affine(shared.T, zeros)
        qkv[:2] = [one.after(wide, shared) for one in qkv[:2]]
    elif sizes.reads == "bottleneck":
        qkv = [one.after(wide, basis) for one in qkv]
    stacks = _stacks(ups, down, middle, basis, sizes, given.active if given else None, seed)
    return Narrow(
        basis, Affine(basis.T, zeros), looked, (qkv[0], qkv[1], qkv[2]), (wanted[0], wanted[1], wanted[2]),
        joined, stacks, Affine(basis, np.zeros(site.width)),
    )  # fmt: skip


def _heads(
    site: Site, sides: Sequence[Affine], o: Affine, wide: Seen, basis: np.ndarray, size: int
) -> tuple[Affine, Affine, Affine, Affine]:
    """(queries, keys, values) of fewer features a head, reading what they read, and what joins the heads."""
    attention = site.attention
    together = attention.heads // attention.kv_heads
    columns = np.arange(o.weight.shape[1]).reshape(attention.heads, -1)
    read = (attention.q_features, attention.k_features, attention.v_features)
    found: list[list[Affine]] = [[], [], []]
    joined, shift = [], basis.T @ o.bias
    for number in range(attention.kv_heads):
        mine = range(number * together, (number + 1) * together)
        assert all(one is not None for one in read)
        queries = [sides[0].of(read[0][head]) for head in mine]  # type: ignore[index]
        key, value = (side.of(features[number]) for side, features in zip(sides[1:], read[1:], strict=True))  # type: ignore[index]
        ends = np.concatenate([basis.T @ o.weight[:, columns[head]] for head in mine])
        if size < attention.head_dim:
            a, b = scores([wide.through(one) for one in queries], wide.through(key), size)
            seen = wide.through(value)
            c, ends_ = weighed(ends, seen, size)
            lost = ends @ seen.mean - ends_ @ (c.T @ seen.mean)
            shift = shift + lost.reshape(together, -1).sum(0)
            queries, ends = [_few(one, a) for one in queries], ends_
            key, value = _few(key, b), _few(value, c)
        for side, one in zip(found, (queries, [key], [value]), strict=True):
            side += one
        joined += np.split(ends, together)
    q, k, v = (
        Affine(np.concatenate([one.weight for one in side]), np.concatenate([one.bias for one in side]))
        for side in found
    )
    return q, k, v, Affine(np.concatenate(joined, axis=1), shift)


def _few(product: Affine, places: np.ndarray) -> Affine:
    return Affine(places.T @ product.weight, places.T @ product.bias)


def _stacks(
    ups: Sequence[Affine],
    down: Affine,
    middle: Seen,
    basis: np.ndarray,
    sizes: Sizes,
    active: np.ndarray | None,
    seed: int,
) -> tuple[Stack, ...]:
    """The neurons that give most, dealt out in turn; where there are too few, new ones that give next to
    nothing."""
    ends = basis.T @ down.weight
    if active is None:
        active = np.prod([np.square(one.weight).sum(1) for one in ups], axis=0)
    order = np.argsort(-active * np.square(ends).sum(0), kind="stable")
    all_of_them = sizes.count * sizes.inner
    chosen = np.full(all_of_them, NONE)
    chosen[: len(order)] = order[:all_of_them]
    random = np.random.default_rng(seed)
    made = []
    for number in range(sizes.count):
        neurons = chosen[number :: sizes.count]
        new = neurons == NONE
        wanted = [one.of(neurons) for one in ups]
        parts = [one.after(middle, basis) for one in wanted]
        for one in parts:
            noise = random.standard_normal((int(new.sum()), sizes.width))
            one.weight[new], one.bias[new] = noise * one.weight.std(), 0.0
        weight = ends[:, neurons].copy()
        weight[:, new] = FIRST * ends.std() * random.standard_normal((sizes.width, int(new.sum())))
        joins = Affine(weight, basis.T @ down.bias / sizes.count)
        made.append(Stack(neurons, tuple(parts), tuple(wanted), joins))
    return tuple(made)

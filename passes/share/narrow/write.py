"""Layers of an fx program made narrow inside, in place."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks.activation import Part
from ....ir.blocks.walk import bare
from ....ir.values import Value
from ..groups.write import copied
from .hand import Dense, Hand, Scaled
from .sites import Reads, Site
from .start import Affine
from .weights import Narrow, Stack

aten = torch.ops.aten


@dataclass
class Layer:
    """What stands for a layer.

    norms: of the bottlenecks, each with the weight (width, stream) of what it is a norm of. qkv: each product
    with what it comes near to. after: what stands behind each sum, in a post-norm layer; before: in front of
    each feed-forward, in a pre-norm one.
    """

    site: Site
    narrow: Narrow
    norms: list[tuple[Scaled, np.ndarray]] = field(default_factory=list)
    qkv: list[tuple[Dense, Affine]] = field(default_factory=list)
    o: Dense | None = None
    after: list[Scaled] = field(default_factory=list)
    before: list[Scaled] = field(default_factory=list)
    stacks: list[tuple[Stack, list[Dense], Dense]] = field(default_factory=list)
    out: Dense | None = None


class Writer:
    """Edits one graph, site by site in its order, once heads were cut; `prune` and `propagate` it afterwards.

    Args:
        order: the places of its nodes. reads: what attention is to read.
    """

    def __init__(self, gm: GraphModule, order: dict[Node, int], reads: Reads) -> None:
        self._gm, self._order, self._reads = gm, order, reads
        self._replaced: dict[Node, Node] = {}
        self._stored: dict[Hashable, Node] = {}

    def layer(
        self,
        site: Site,
        new: Narrow,
        inside: tuple[Sequence[Part], Sequence[Node]],
        kept: dict[Value, np.ndarray],
    ) -> Layer:
        """Puts a narrow layer in place of one.

        Args:
            inside: the activation's parts and operators. kept: by what a projection gives, the positions of
                its features that are left.
        """
        made = Layer(site, new)
        hand = Hand(self._gm, site, self._stored)
        wide = site.wide.native
        sides = [one for one in (site.attention.q, site.attention.k, site.attention.v) if one is not None]
        first = min((v.native for one in sides for v in one.body), key=self._order.__getitem__)
        state = hand.dense("input", wide, new.into, first).root
        read: list[Node] = [wide] * 3
        if site.last is not None or self._reads == "bottleneck":
            norm = hand.norm("input", state, first)
            made.norms.append((norm, new.into.weight))
            state = state if site.last is None else norm.root
            read = [norm.root] * 3 if self._reads == "bottleneck" else read
        if new.looked is not None:
            norm = hand.norm("attention", hand.dense("attention", wide, new.looked, first).root, first)
            made.norms.append((norm, new.looked.weight))
            read[:2] = [norm.root] * 2
        self._project(made, hand, read, kept)
        end = site.sums[1].native
        state = self._tail(made, hand, state, inside, end)
        entry = bare(site.entry).native
        entry = self._replaced.get(entry, entry)
        made.out = hand.dense("output", state, new.out, end, entry)
        total = hand.call(aten.add.Tensor, made.out.root, entry, before=end)
        end.replace_all_uses_with(total)
        self._replaced[end] = total
        return made

    def _project(self, made: Layer, hand: Hand, read: Sequence[Node], kept: dict[Value, np.ndarray]) -> None:
        """Queries, keys and values in their places, one product where one gave several."""
        attention, new = made.site.attention, made.narrow
        roots: dict[Value, list[int]] = {}
        for number, side in enumerate((attention.q, attention.k, attention.v)):
            assert side is not None
            roots.setdefault(side.root, []).append(number)
        features = (attention.q_features, attention.k_features, attention.v_features)
        for root, numbers in roots.items():
            pieces = []
            for number in numbers:
                each = features[number]
                assert each is not None
                count = len(new.qkv[number].weight) // len(each)
                pieces.append(np.searchsorted(kept[root], each[:, :count].reshape(-1)))
            product, wanted = (
                _joined([side[number] for number in numbers], pieces) for side in (new.qkv, new.wanted)
            )
            name = "_".join(("query", "key", "value")[number] for number in numbers)
            one = hand.dense(name, read[numbers[0]], product, root.native)
            root.native.replace_all_uses_with(one.root)
            made.qkv.append((one, wanted))

    def _tail(
        self, made: Layer, hand: Hand, state: Node, inside: tuple[Sequence[Part], Sequence[Node]], end: Node
    ) -> Node:
        """From the heads to the last of the feed-forwards."""
        attention, new, pre = made.site.attention, made.narrow, made.site.last is None
        assert attention.o is not None
        made.o = hand.dense("joined", attention.o.input.native, new.o, end, state)
        state = hand.call(aten.add.Tensor, made.o.root, state, before=end)
        if not pre:
            made.after.append(hand.norm("joined", state, end))
            state = made.after[-1].root
        for number, stack in enumerate(new.stacks):
            x = state
            if pre:
                made.before.append(hand.norm(f"ffn.{number}", state, end))
                x = made.before[-1].root
            parts = [
                hand.dense(f"ffn.{number}.up_{place}" if place else f"ffn.{number}.up", x, one, end)
                for place, one in enumerate(stack.parts)
            ]
            known = {part.value.native: one.root for part, one in zip(inside[0], parts, strict=True)}
            down = hand.dense(f"ffn.{number}.down", copied(inside[1], known, end), stack.down, end, state)
            made.stacks.append((stack, parts, down))
            state = hand.call(aten.add.Tensor, down.root, state, before=end)
            if not pre:
                made.after.append(hand.norm(f"ffn.{number}", state, end))
                state = made.after[-1].root
        return state


def _joined(products: Sequence[Affine], places: Sequence[np.ndarray]) -> Affine:
    """One product that gives at each place what some of these give."""
    total = sum(map(len, places))
    weight, bias = np.zeros((total, products[0].weight.shape[1])), np.zeros(total)
    for one, place in zip(products, places, strict=True):
        weight[place], bias[place] = one.weight, one.bias
    return Affine(weight, bias)

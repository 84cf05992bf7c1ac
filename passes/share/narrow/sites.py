"""Layers of an fx program that can be made narrow inside: what they are made of, and why others cannot be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.activation import Part, gather
from ....ir.blocks.base import Attention, Blocks, FeedForward, Linear, Norm, Residual
from ....ir.blocks.stream import StreamLayer, streams
from ....ir.blocks.walk import bare
from ....ir.ops.coupling import Group, groups
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from .heads import coupled_heads
from .unfit import heads_unfit, linears_of, read_elsewhere, weights_unfit

Reads = Literal["shared", "bottleneck", "input"]


@dataclass(frozen=True)
class Site:
    """One layer: an attention and a feed-forward, each added to the stream.

    entry, exit: the stream before and after. wide: what its projections read: the entry, or in a pre-norm
    layer its norm. sums: what the attention and the feed-forward are added to give. middle: the norm that
    the feed-forward reads. last: the norm that gives the exit, in a post-norm layer; None in a pre-norm one.
    cut: how the size of a head is coupled, of queries and keys and of values. key: of the attention's weights
    and the feed-forward's, equal for layers that share them.
    """

    attention: Attention
    feed_forward: FeedForward
    entry: Value
    exit: Value
    wide: Value
    sums: tuple[Value, Value]
    middle: Norm
    last: Norm | None
    cut: tuple[Group, ...]
    key: tuple[Hashable, Hashable]

    @property
    def name(self) -> str:
        return str(self.attention.root.name)

    @property
    def width(self) -> int:
        """Of the stream."""
        return int(self.entry.shape[-1])  # type: ignore[index, arg-type]

    @property
    def linears(self) -> list[Linear]:
        """Every product of the layer."""
        return [*linears_of(self.attention), *linears_of(self.feed_forward)]

    def activation(self, order: Mapping[Node, int]) -> tuple[tuple[Part, ...], list[Node]]:
        """What the activation reads, and its operators in the graph's order.

        Args:
            order: the places of the graph's nodes.
        """
        one = self.feed_forward
        linears = {each.root: each for each in (one.up, one.gate) if each is not None}
        gathered = gather(bare(one.down.input), linears)
        assert gathered is not None  # it is a feed-forward because it can be
        body, parts = gathered
        return tuple(parts), sorted((value.native for value in body), key=order.__getitem__)


def sites(program: Program, width: int, reads: Reads) -> tuple[list[Site], list[str]]:
    """Those of a program in the order of the graph, and a sentence for each layer that stays."""
    graph = view(program)
    blocks = recognise(graph)
    found, notes = streams(graph, blocks)
    coupled = groups(graph)
    kept = []
    for layer in (layer for stream in found for layer in stream.layers):
        one = _site(layer, blocks, coupled, width, reads)
        if isinstance(one, str):
            notes.append(f"the layer at {layer.blocks[0].root.name} stays: {one}")
        else:
            kept.append(one)
    notes += [
        f"{miss.node} is no attention: {miss.reason}" for miss in blocks.missed if miss.kind == "attention"
    ]
    return _apart(kept, notes), notes


def _site(
    layer: StreamLayer, blocks: Blocks, coupled: Sequence[Group], width: int, reads: Reads
) -> Site | str:
    """The site of a layer, or why it has none."""
    wide = layer.entry.shape[-1] if layer.entry.shape else None
    if not isinstance(wide, int):
        return "its features are not on the last axis"
    attentions = [block for block in layer.blocks if isinstance(block, Attention)]
    inside = [block.o for block in attentions if block.o is not None]
    if any(o.out_features < wide for o in inside):
        return f"it is a bottleneck already, {inside[0].out_features} of {wide} features wide inside"
    if width >= wide:
        return f"a bottleneck of {width} features is no narrower than its {wide}"
    if len(layer.blocks) != 2 or not isinstance(layer.blocks[1], FeedForward) or len(attentions) != 1:
        there = len(layer.blocks) - len(attentions)
        return f"it has {len(attentions)} attentions and {there} feed-forwards, not one of each"
    attention, ff = attentions[0], layer.blocks[1]
    if why := heads_unfit(attention, wide, width, reads) or weights_unfit([attention, ff]):
        return why
    cut = coupled_heads(attention, coupled, width // attention.heads)
    if isinstance(cut, str):
        return cut
    made = _placed(layer, attention, ff, blocks, cut)
    if isinstance(made, Site) and (read := read_elsewhere(made.entry, made.exit)):
        return f"{read} inside of it is read elsewhere"
    return made


def _placed(
    layer: StreamLayer, attention: Attention, ff: FeedForward, blocks: Blocks, cut: tuple[Group, ...]
) -> Site | str:
    """How the norms stand: after the sums, or before what is added."""
    assert attention.q is not None
    added: dict[Value, Residual] = {bare(r.branch): r for r in blocks.residual}
    first, second = added.get(attention.root), added.get(ff.root)
    if first is None or second is None:
        return "what it computes is not added to the stream as it is"
    norms: Mapping[Value, list[Norm]] = {
        each: [norm for norm in blocks.norm if bare(norm.input) == each] for each in (first.root, second.root)
    }
    entry, wide = bare(layer.entry), attention.q.input
    middle = next((norm for norm in norms[first.root] if norm.root == bare(ff.input)), None)
    if middle is None or bare(first.stream) != entry:
        return "its feed-forward does not read a norm of the sum with its attention"
    weights = [tuple(id(one.weight.tensor) for one in linears_of(block)) for block in (attention, ff)]
    site = Site(
        attention,
        ff,
        layer.entry,
        layer.exit,
        wide,
        (first.root, second.root),
        middle,
        None,
        cut,
        (weights[0], weights[1]),
    )
    before = next((norm for norm in blocks.norm if norm.root == bare(wide)), None)
    if bare(second.stream) == first.root and bare(layer.exit) == second.root:
        if before is not None and bare(before.input) == entry:
            return site
    elif bare(second.stream) == middle.root and bare(wide) == entry:
        last = next((norm for norm in norms[second.root] if norm.root == bare(layer.exit)), None)
        if last is not None:
            return replace(site, last=last)
    return "its norms stand neither after both sums nor before both sub-layers"


def _apart(found: list[Site], notes: list[str]) -> list[Site]:
    """Those whose head size belongs to layers that become narrow alone."""
    while True:
        mine = {v for site in found for one in linears_of(site.attention) for v in (one.weight, one.bias)}
        stays = [
            (site, other)
            for site in found
            for group in site.cut
            for other in [m.value for m in group.members if m.value.op == "const" and m.value not in mine]
        ]
        if not stays:
            return found
        notes += [
            f"the layer at {site.name} stays: its heads are those of {other.name}" for site, other in stays
        ]
        found = [site for site in found if all(site is not one for one, _ in stays)]

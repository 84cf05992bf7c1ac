"""The residual stream: where each layer takes it up and where it gives it on.

A layer starts at each attention that is not a cross-attention, as in `ir.blocks.Stack`; layers need not be
equal, so that pruned ones are found too. Walking back from a last layer's last residual sum, through sums and
the norms over them, meets every residual of one stream: what the first one of a layer adds to is the layer's
entry, and that is the exit of the layer before. Pre-norm, post-norm, parallel and bottleneck layers are all
the same to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from ..values import GraphView, Value
from .base import Attention, Blocks, FeedForward, Residual
from .residual import MOVES
from .walk import bare


@dataclass(frozen=True)
class StreamLayer:
    """One layer. entry, exit: values of one shape; without the layer, the one stands for the other."""

    blocks: tuple[Attention | FeedForward, ...]
    entry: Value
    exit: Value


@dataclass(frozen=True)
class Stream:
    """Layers that follow each other, first to last. decoder: they look at another stream."""

    layers: tuple[StreamLayer, ...]

    @property
    def decoder(self) -> bool:
        return any(isinstance(b, Attention) and b.cross for layer in self.layers for b in layer.blocks)


def streams(view: GraphView, blocks: Blocks) -> tuple[list[Stream], list[str]]:
    """Streams in the order of the graph, and a sentence for each layer that stands in none.

    Args:
        blocks: of this view (`ir.blocks.recognise`).
    """
    order: dict[Value, int] = {value: i for i, value in enumerate(view.values)}
    found: list[list[Attention | FeedForward]] = []
    layered: list[Attention | FeedForward] = [*blocks.attention, *blocks.feed_forward]
    for block in sorted(layered, key=lambda block: order[block.root]):
        if isinstance(block, Attention) and not block.cross:
            found.append([])
        if found:
            found[-1].append(block)
    starts = [order[layer[0].root] for layer in found]
    layer_of = {r.root: bisect_right(starts, order[r.root]) - 1 for r in blocks.residual}
    lasts = _lasts(blocks, layer_of)
    result: list[Stream] = []
    notes: list[str] = []
    left = len(found)  # of the layers, those before the streams found so far
    while left:
        name = found[left - 1][0].root.name
        if left - 1 not in lasts:
            notes.append(f"the layer at {name} is not taken: nothing is added to a stream")
            left -= 1
            continue
        chain = _chain(lasts[left - 1], blocks)
        entries: dict[int, Value] = {}
        for residual in chain:
            if layer_of[residual.root] >= 0:
                entries.setdefault(layer_of[residual.root], residual.stream)
        exits = [*list(entries.values())[1:], _end(chain[-1], blocks, entries[left - 1])]
        layers = []
        for (number, entry), exit in zip(entries.items(), exits, strict=True):
            if entry.shape is not None and (entry.shape, entry.dtype) == (exit.shape, exit.dtype):
                layers.append(StreamLayer(tuple(found[number]), entry, exit))
            else:
                name = found[number][0].root.name
                notes.append(f"the layer at {name} is not taken: {exit.name} is no {entry.name} in shape")
        if layers:
            result.insert(0, Stream(tuple(layers)))
        left = min(entries)
    return result, notes


def _lasts(blocks: Blocks, layer_of: Mapping[Value, int]) -> dict[int, Residual]:
    """By layer, the last sum of its stream: a sum that goes back to no earlier layer, where another does, is
    of a head behind the layers (SigLIP's pooling)."""
    sums: dict[int, list[Residual]] = {}
    for residual in blocks.residual:
        sums.setdefault(layer_of[residual.root], []).append(residual)
    found = {}
    for number, each in sums.items():
        joined = [r for r in each if any(layer_of[one.root] < number for one in _chain(r, blocks))]
        found[number] = (joined or each)[-1]
    return found


def _chain(last: Residual, blocks: Blocks) -> list[Residual]:
    """The residual sums of one stream up to the last, first one first."""
    residuals = {residual.root: residual for residual in blocks.residual}
    norms = {norm.root: norm for norm in blocks.norm}
    chain = [last]
    while True:
        value = _unmoved(chain[0].stream)
        if value not in residuals and value in norms:
            value = _unmoved(norms[value].input)
        if value not in residuals:
            return chain
        chain.insert(0, residuals[value])


def _end(last: Residual, blocks: Blocks, like: Value) -> Value:
    """Where the stream goes on below its last sum: past a post-norm, and moves to the shape of `like`."""
    value: Value = last.root
    for norm in blocks.norm:
        if norm.position == "post" and _unmoved(norm.input) == last.root:
            value = norm.root
    moved = value
    while moved.shape != like.shape:
        following = [user for user in moved.users if user.op in MOVES]
        if len(following) != 1:
            return value
        moved = following[0]
    return moved


def _unmoved(value: Value) -> Value:
    value = bare(value)
    while value.op in MOVES and value.inputs[0] is not None:
        value = bare(value.inputs[0])
    return value

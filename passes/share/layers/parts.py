"""What a layer is made of: its parameters in the order in which they are read, each with its sub-layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import GraphModule, Node

from ....ir.blocks.base import Attention, Blocks, FeedForward, Linear
from ....ir.blocks.stream import Stream, StreamLayer
from ....ir.fx.graph import attribute
from ....ir.values import Value
from ...common.between import between

Kind = Literal["attention", "ffn", "norm", "other"]


@dataclass(frozen=True)
class Part:
    """A parameter where a layer reads it. path: its name. of: the sub-layer. key: what reads it, equal for
    parts that may stand for each other in two layers of one make: sub-layer, operator and operand."""

    path: str
    of: Kind
    key: tuple[Kind, str, int]


@dataclass(frozen=True)
class Layer:
    """parts: of its nodes, those included that compute something from parameters for this layer alone.
    blocks: every attention and feed-forward of it with the sizes that its weights don't tell."""

    parts: tuple[Part, ...]
    blocks: tuple[tuple[str, ...], ...]


def layers(gm: GraphModule, stream: Stream, blocks: Blocks) -> list[Layer]:
    """The layers of a stream, first to last."""
    common: dict[Node, Kind] = {v.native: "norm" for one in blocks.norm for v in one.body}
    for one in blocks.experts:
        common.update({v.native: "ffn" for v in (*one.body, *one.router.body)})
    found = []
    for layer in stream.layers:
        of = {**common, **_sublayers(layer)}
        region = between(layer.entry.native, layer.exit.native)
        own = _own(layer.exit.native, layer.entry.native, region)
        for node in reversed(own):  # what is made for an attention alone is a part of it
            users = {of.get(user, "other") for user in node.users}
            if len(users) == 1 and users <= {"attention", "ffn"}:
                of.setdefault(node, users.pop())
        parts = [
            Part(str(read.target), kind, (kind, str(node.target), place))
            for node in sorted([*region, *own])
            for kind in [of.get(node, "other")]
            for place, read in enumerate(node.all_input_nodes)
            if read.op == "get_attr" and _trained(gm, read)
        ]
        found.append(Layer(tuple(parts), tuple(map(_described, layer.blocks))))
    return found


def _trained(gm: GraphModule, node: Node) -> bool:
    tensor = attribute(gm, str(node.target))
    return isinstance(tensor, torch.nn.Parameter) and tensor.is_floating_point()


def _sublayers(layer: StreamLayer) -> dict[Node, Kind]:
    """The nodes of attentions and feed-forwards, norms of queries and keys included."""
    found: dict[Node, Kind] = {}
    for block in layer.blocks:
        linears: Iterable[Linear | None]
        if isinstance(block, Attention):
            kind: Kind = "attention"
            linears = (block.q, block.k, block.v, block.o)
            inner = [norm for norm in (block.q_norm, block.k_norm) if norm is not None]
        else:
            kind, linears, inner = "ffn", (block.up, block.gate, block.down), []
        values: list[Value] = [*block.body]
        for body in (*(one.body for one in linears if one is not None), *(norm.body for norm in inner)):
            values += body
        found.update({v.native: kind for v in values if isinstance(v.native, Node)})
    return found


def _own(exit: Node, entry: Node, region: dict[Node, None]) -> list[Node]:
    """What a layer computes without looking at its entry and for nobody else, in the graph's order."""
    own: set[Node] = set()
    for node in reversed(exit.graph.nodes):
        inside = node in region or node is entry or node.op != "call_function"
        if not inside and node.users and all(user in region or user in own for user in node.users):
            own.add(node)
    return [node for node in exit.graph.nodes if node in own]


def _described(block: Attention | FeedForward) -> tuple[str, ...]:
    if isinstance(block, FeedForward):
        return ("feed-forward",)
    name = "cross-attention" if block.cross else "attention"
    heads = f"{block.heads} heads of {block.head_dim}"
    return name, heads if block.kv_heads == block.heads else f"{heads} over {block.kv_heads}"

"""Feed-forwards and projections of queries, keys and values in an fx program that can be cut into groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.activation import Part, gather
from ....ir.blocks.base import Attention, FeedForward, Linear
from ....ir.blocks.walk import bare
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from ...common.fx_weights import Matrix
from ..low_rank.layers import layers

Where = Literal["all", "attention", "ffn"]
Pieces = tuple[tuple[int, int], ...]


@dataclass
class Site:
    """One set of weights, at each place of its use: a feed-forward's, or a projection's.

    products: (matrix, pieces of its rows that are cut apart), `down` last where it is a feed-forward.
    uses: for each place, the Linears of `products`. parts: for each place, what the activation reads, in the
    order of all pieces but down's; body: for each place, the activation's operators in the graph's order.
    """

    products: list[tuple[Matrix, Pieces]]
    uses: list[tuple[Linear, ...]]
    parts: list[tuple[Node, ...]]
    body: list[list[Node]]

    @property
    def feed_forward(self) -> bool:
        return bool(self.parts)

    @property
    def name(self) -> str:
        return " and ".join(matrix.name for matrix, _ in self.products)

    def unfit(self, groups: int) -> str:
        """Why it doesn't fall into so many groups; or ""."""
        for matrix, pieces in self.products:
            sizes = [(matrix.columns, "inputs"), *((stop - start, "outputs") for start, stop in pieces)]
            for size, what in sizes:
                if size % groups or size == groups:
                    of = f" of {matrix.name}" if len(self.products) > 1 else ""
                    return (
                        f"{size} {what}{of} don't fall into {groups} equal groups: give groups that divide it"
                    )
        biases = [linear.bias for use in self.uses for linear in use]
        if any(b is not None and (b.op != "const" or len(b.shape or ()) != 1) for b in biases):
            return "its bias is no vector of its own"
        return ""


def sites(program: Program, where: Where) -> tuple[list[Site], list[str]]:
    """Those of a program, and a sentence for each block whose weights stay."""
    graph = view(program)
    blocks = recognise(graph)
    known, left = layers(program)
    matrices = {
        linear.root.native: matrix
        for one in known
        for site in one.sites
        for matrix, linear in zip(one.matrices, site, strict=True)
    }
    reasons = {note.split(" stays, ")[0]: note for note in left}
    order = {node: place for place, node in enumerate(program.graph.graph.nodes)}
    found: dict[tuple[str, ...], Site] = {}
    notes: list[str] = []
    wanted: list[tuple[str, Sequence[tuple[Linear, Pieces]], FeedForward | None]] = []
    if where != "ffn":
        wanted += [(a.root.name, [projection], None) for a in blocks.attention for projection in _qkv(a)]
    if where != "attention":
        wanted += [(one.root.name, _around(one), one) for one in blocks.feed_forward]
    for name, products, block in wanted:
        linears = [linear for linear, _ in products]
        if any(linear.root.native not in matrices for linear in linears):
            stays = [str(getattr(linear.weight.native, "target", "")) for linear in linears]
            why = next((reasons[path] for path in stays if path in reasons), "")
            conv = any(linear.axis != -1 for linear in linears)
            other = "it is a convolution" if conv else "no stored weight is all that it multiplies by"
            notes.append(why or f"{name} stays, {other}")
            continue
        mine = [matrices[linear.root.native] for linear in linears]
        key = tuple(matrix.name for matrix in mine)
        pieces = [piece for _, piece in products]
        site = found.setdefault(key, Site(list(zip(mine, pieces, strict=True)), [], [], []))
        site.uses.append(tuple(linears))
        if block is not None:
            body, parts = _inside(block, order)
            site.parts.append(parts)
            site.body.append(body)
    return _whole(found.values(), notes), notes


def _whole(found: Iterable[Site], notes: list[str]) -> list[Site]:
    """Those of whose weights every product is theirs."""
    kept = []
    for site in found:
        other = [m for m, _ in site.products if len(m.products) != len(site.uses)]
        if other:
            notes.append(f"{site.name} stays, {other[0].name} is used in another place too")
        else:
            kept.append(site)
    return kept


def _qkv(attention: Attention) -> list[tuple[Linear, Pieces]]:
    """The projections, each once; one that is several in one falls into these."""
    pieces: dict[Value, list[tuple[int, int]]] = {}
    linears = {}
    for linear, features in (
        (attention.q, attention.q_features),
        (attention.k, attention.k_features),
        (attention.v, attention.v_features),
    ):
        if linear is not None and features is not None:
            linears[linear.root] = linear
            low, high = int(features.min()), int(features.max()) + 1
            pieces.setdefault(linear.root, []).append((low, high if high - low == features.size else -1))
    return [(one, _tiling(pieces[root], one.out_features)) for root, one in linears.items()]


def _tiling(pieces: Sequence[tuple[int, int]], size: int) -> Pieces:
    """Pieces in their order where they make up all of it, else all in one."""
    ordered = sorted(set(pieces))
    ends = [0, *(stop for _, stop in ordered)]
    tiles = all(start == end for (start, _), end in zip(ordered, ends, strict=False)) and ends[-1] == size
    return tuple(ordered) if tiles else ((0, size),)


def _around(block: FeedForward) -> list[tuple[Linear, Pieces]]:
    """Products whose results an activation reads, by piece; then the one that reads it."""
    ends: dict[Value, list[tuple[int, int]]] = {block.up.root: [block.up_features]}
    linears = {block.up.root: block.up}
    if block.gate is not None and block.gate_features is not None:
        ends.setdefault(block.gate.root, []).append(block.gate_features)
        linears[block.gate.root] = block.gate
    ups = [(one, tuple(sorted(ends[root]))) for root, one in linears.items()]
    return [*ups, (block.down, ((0, block.down.out_features),))]


def _inside(block: FeedForward, order: dict[Node, int]) -> tuple[list[Node], tuple[Node, ...]]:
    linears = {one.root: one for one in (block.up, block.gate) if one is not None}
    gathered = gather(bare(block.down.input), linears)
    assert gathered is not None  # it is a feed-forward because it can be
    body, parts = gathered
    places: dict[tuple[Value, int], Part] = {(part.linear.root, part.start): part for part in parts}
    ordered = [places[linear.root, start] for linear, piece in _around(block)[:-1] for start, _ in piece]
    return sorted((value.native for value in body), key=order.__getitem__), tuple(
        part.value.native for part in ordered
    )

"""Units: what structured pruning can remove from a block, found from blocks and from coupled axes.

A unit of attention is a head, with grouped queries a key/value head and the queries that read it; one of a
feed-forward is a neuron. Blocks whose axes depend on each other share their units: layers with the same
weights (ALBERT: Lan et al., 2020, arXiv:1909.11942), layers under one position bias (T5, MPNet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ....ir.blocks import recognise
from ....ir.blocks.base import Attention, FeedForward, Linear, Miss
from ....ir.blocks.heads import met
from ....ir.blocks.walk import stored
from ....ir.ops.coupling import Group, groups, groups_of
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from .ties import tied

Kind = Literal["heads", "width"]


@dataclass(frozen=True)
class Output:
    """An output projection, by the names of its nodes.

    product: the linear, addmm, matmul or convolution. operand: what it reads; its axis `axis` is made of the
    units. root: the sum with the bias, unflattened. bias: None without one. weight: its get_attr, stored
    (out, in) if transposed. groups: of a convolution.
    """

    product: str
    operand: str
    axis: int
    root: str
    bias: str | None
    weight: str
    transposed: bool
    groups: int


@dataclass(frozen=True, eq=False)
class Units:
    """What can be removed from a block, or from several that go together.

    kind: "heads" (key/value heads where queries are grouped) or "width" (neurons of a feed-forward).
    size: how many units. layer: the number of the (first) layer, from 0; a layer starts at each attention
    that is not a cross-attention. outputs: the output projection of each block, in graph order.
    places: (size, positions a unit): which positions of every output projection's operand are unit u's.
    groups: of coupled axes; none where there is one unit.
    """

    kind: Kind
    size: int
    layer: int
    outputs: tuple[Output, ...]
    places: np.ndarray
    groups: tuple[Group, ...]

    @property
    def output(self) -> Output:
        return self.outputs[0]

    def positions(self, unit: int) -> np.ndarray:
        """Positions along the operand of an output projection that are one unit's, ascending."""
        found: np.ndarray = self.places[unit]
        return found

    def owner(self) -> np.ndarray:
        """(features,): which unit each position of an output projection's operand belongs to."""
        of = np.empty(self.places.size, dtype=np.int64)
        of[self.places] = np.arange(self.size)[:, None]
        return of


def units(program: Program) -> list[Units]:
    """What can be removed from an fx program's blocks, in graph order."""
    return survey(program)[0]


def survey(program: Program) -> tuple[list[Units], list[Miss]]:
    """`units`, and for each attention and feed-forward that has none, why."""
    graph = view(program)
    blocks = recognise(graph)
    found = groups(graph)
    ties = tied(found)
    missed = [miss for miss in blocks.missed if miss.kind in ("attention", "feed_forward")]
    order: dict[Value, int] = {value: i for i, value in enumerate(graph.values)}
    every: list[Attention | FeedForward] = [*blocks.attention, *blocks.feed_forward]
    ordered = sorted(every, key=lambda block: order[block.root])
    by_first: dict[int, Units] = {}
    for layer, block in _numbered(ordered):
        one = _units(block, layer, found, ties)
        name = "attention" if isinstance(block, Attention) else "feed_forward"
        if isinstance(one, str):
            missed.append(Miss(name, block.root.name, one))
            continue
        key = id(one.groups[0]) if one.groups else id(one)
        known = by_first.get(key)
        if known is None:
            by_first[key] = one
        elif not np.array_equal(known.places, one.places):
            reason = f"its units lie otherwise than those of {known.output.root}"
            missed.append(Miss(name, block.root.name, reason))
        else:
            by_first[key] = Units(
                known.kind,
                known.size,
                known.layer,
                (*known.outputs, *one.outputs),
                known.places,
                known.groups,
            )
    missed += [
        Miss("feed_forward", each.root.name, f"a mixture of {each.experts} experts, which are left whole")
        for each in blocks.experts
    ]
    return list(by_first.values()), missed


def _numbered(blocks: Sequence[Attention | FeedForward]) -> Iterator[tuple[int, Attention | FeedForward]]:
    layer = -1
    for block in blocks:
        layer += isinstance(block, Attention) and not block.cross
        yield max(layer, 0), block


def _units(
    block: Attention | FeedForward, layer: int, found: Sequence[Group], ties: dict[int, tuple[Group, ...]]
) -> Units | str:
    """A block's units, or why it has none."""
    linear = block.o if isinstance(block, Attention) else block.down
    if linear is None:
        assert isinstance(block, Attention)
        other = met(block.context)
        if other is not None:
            how = (
                "other heads are put beside its own"
                if other.op == "concat"
                else "something is added to its heads"
            )
            return f"{how} ('{other.name}') before they are projected"
        return "its heads go into no output projection"
    output = _output(linear)
    product = next(v for v in linear.body if v.native.name == output.product)
    operand = product.inputs[0]
    assert operand is not None
    kind: Kind = "heads" if isinstance(block, Attention) else "width"
    features = linear.in_features
    if isinstance(block, Attention):
        size = block.kv_heads if block.kv_heads > 1 else block.heads
    else:
        size = block.width
    if size == 1:
        return Units(kind, 1, layer, (output,), np.arange(features)[None], ())
    along = groups_of(found, operand, output.axis)
    group = _heads(along, size, features) if kind == "heads" else _width(along)
    if group is None:
        reasons = [g.fixed for g in along if g.fixed]
        if isinstance(block, Attention) and None in (block.q, block.k, block.v):
            names = {"queries": block.q, "keys": block.k, "values": block.v}
            missing = " and ".join(name for name, linear in names.items() if linear is None)
            reasons.append(f"no single projection gives its {missing}: merge adapters into weights first")
        return f"its {kind} cannot be told apart from other axes" + (f" ({reasons[0]})" if reasons else "")
    together = ties[id(group)]
    reason = next((g.fixed for g in together if g.fixed), "")
    if reason:
        return f"its {kind} cannot go: {reason}"
    (place,) = [m.map for m in group.members if m.value == operand and m.axis == output.axis]
    places = np.stack([place.indices([unit]) for unit in range(group.size)])
    if places.size != features:
        return f"{features - places.size} of the {features} features that it projects are no unit's"
    return Units(kind, group.size, layer, (output,), places, together)


def _heads(along: Sequence[Group], size: int, features: int) -> Group | None:
    """The group that says which block of an axis is which head."""
    for group in along:
        maps = [m.map for m in group.members if m.map.static]
        if group.size == size and any(
            (m.offset, m.inner, m.repeats) == (0, features // size, ()) for m in maps
        ):
            return group
    return None


def _width(along: Sequence[Group]) -> Group | None:
    """A feed-forward's neurons; of a grouped convolution, those at one place in each of its groups."""
    free = [group for group in along if not group.fixed] or list(along)
    return max(free, key=lambda group: group.size, default=None)


def _output(linear: Linear) -> Output:
    product = next(v for v in linear.body if v.op in ("linear", "matmul", "conv1d"))
    operand: Value | None = product.inputs[0]
    assert operand is not None
    assert operand.shape is not None
    bias = linear.bias.native.name if linear.bias is not None else None
    return Output(
        product.native.name,
        operand.native.name,
        linear.axis % len(operand.shape),
        linear.root.native.name,
        bias,
        stored(linear.weight).native.name,
        linear.transposed,
        linear.groups,
    )

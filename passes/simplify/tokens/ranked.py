"""Which tokens stay behind an attention: their scores, and the places of those that are kept.

Everything is spelled by operators with one meaning on every runtime. A stable descending sort ranks (equal
scores by place), so that no runtime chooses differently; K places are read from it, and a second sort puts
them back in order. Of a text with n tokens, n r rounded up stay: place i is one of them where
1000 i < n (1000 r), which whole numbers decide exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from ....ir.blocks.base import Attention
from ....ir.fx.graph import call

aten = torch.ops.aten
THOUSAND = 1000  # shares are told to this part
FIRST = 1e30  # the score of a text's first token: above any other
Size = Node | int


@dataclass
class Level:
    """The tokens behind so many cuts.

    size: places, K. live: bool (batch, K), which of them hold a token; None where all do.
    index: int64 (batch, K), the places that they had a level above. None at the top.
    origin: int64 (batch, K), the places that they had at the top.
    """

    size: Size
    live: Node | None
    index: Node | None = None
    origin: Node | None = None


class Maker:
    """Calls written before one node.

    Args:
        batch: how many rows.
    """

    def __init__(self, graph: Graph, before: Node, batch: Size) -> None:
        self.graph, self.before, self.batch = graph, before, batch

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return call(self.graph, target, *args, before=self.before, **kwargs)

    def arange(self, size: Size) -> Node:
        return self(aten.arange.default, size, dtype=torch.int64)


def kept(make: Maker, size: Size, thousandths: int) -> Size:
    """Of so many places, how many stay: rounded up."""
    if isinstance(size, int):
        return -(-size * thousandths // THOUSAND)
    most = make(operator.add, make(operator.mul, size, thousandths), THOUSAND - 1)
    return make(operator.floordiv, most, THOUSAND)


def chosen(
    make: Maker, level: Level, top: Size, counts: Node | None, scores: Node, thousandths: int
) -> Level:
    """The level below: the tokens with the best scores, in the order of the text, and behind them places
    without a token.

    Args:
        level: that the scores are of. top: places before any cut. counts: int64 (batch, 1), tokens of each
            text before any cut. scores: (batch, places), larger is better.
        thousandths: of the tokens before any cut, that stay.
    """
    size = kept(make, top, thousandths)
    places = make.arange(level.size)
    if level.live is None:
        first = make(aten.eq.Scalar, places, 0)
        live = None
    else:
        far = make(aten.where.ScalarOther, level.live, places, 1 << 30)
        first = make(aten.eq.Tensor, places, make(aten.amin.default, far, [-1], True))
        scores = make(aten.where.ScalarOther, level.live, scores, -1.0)
        reached = make(aten.mul.Tensor, make.arange(size), THOUSAND)
        live = make(aten.lt.Tensor, reached, make(aten.mul.Tensor, counts, thousandths))
    scores = make(aten.where.ScalarSelf, first, FIRST, scores)
    order = make(operator.getitem, make(aten.sort.stable, scores, stable=True, dim=-1, descending=True), 1)
    best = make(aten.index_select.default, order, 1, make.arange(size))
    if live is not None:
        best = make(aten.where.ScalarOther, live, best, 1 << 30)
    index = make(operator.getitem, make(aten.sort.stable, best, stable=True, dim=-1), 0)
    if live is not None:
        index = make(aten.minimum.default, index, make(aten.amax.default, places, [0], True))
    origin = index if level.origin is None else make(aten.gather.default, level.origin, 1, index)
    return Level(size, live, index, origin)


def taken(make: Maker, stream: Node, level: Level, above: Size) -> Node:
    """(batch, places above, features) at the places of a level."""
    assert level.index is not None
    width = stream.meta["val"].shape[-1]
    flat = make(aten.reshape.default, stream, [-1, width])
    rows = make(aten.mul.Tensor, make(aten.unsqueeze.default, make.arange(make.batch), 1), above)
    rows = make(aten.reshape.default, make(aten.add.Tensor, rows, level.index), [-1])
    found = make(aten.index_select.default, flat, 0, rows)
    return make(aten.reshape.default, found, [make.batch, level.size, width])


def at_places(
    make: Maker, value: Node, axes: Sequence[int], index: Node, size: Size, sizes: Sequence[Any]
) -> Node:
    """A value whose first axis is the batch, or 1, at places of its own for each row, along some axes.

    Args:
        index: int64 (batch, K). size: K. sizes: of the value's axes.
    """
    shape = [make.batch, *sizes[1:]]
    value = make(aten.expand.default, value, shape) if value.meta["val"].shape[0] == 1 else value
    for axis in axes:
        shape[axis] = size
        lead = [make.batch, *(1 for _ in shape[1:])]
        lead[axis] = size
        wide = make(aten.expand.default, make(aten.reshape.default, index, lead), shape)
        value = make(aten.gather.default, value, axis, wide)
    return value


def scores(
    make: Maker,
    attention: Attention,
    level: Level,
    terms: Callable[[], Sequence[tuple[float, Node]]],
    selected: tuple[Node, bool] | None,
    kind: str,
) -> Node:
    """(batch, places): the attention that each token receives, summed over heads.

    Args:
        terms: what is added to the scores, with factors. selected: a mask over the scores, and whether it
            is true where a key is kept.
        kind: "received", from all tokens of the text; "first", from its first one alone.
    """
    query, key = attention.query.native, attention.key.native
    given, chosen_rows = list(terms()), kind == "first"
    if chosen_rows:
        at = _first(make, level)
        row = lambda value: _row(make, value, at)
        query, given = row(query), [(factor, row(term)) for factor, term in given]
        selected = None if selected is None else (row(selected[0]), selected[1])
    turned = key if attention.layouts[1].endswith("dl") else make(aten.transpose.int, key, -2, -1)
    logits = make(aten.matmul.default, query, turned)
    logits = make(aten.mul.Tensor, logits, float(attention.operand_scale))
    for factor, term in given:
        term = term if factor == 1 else make(aten.mul.Tensor, term, factor)
        logits = make(aten.add.Tensor, logits, term)
    if selected is not None:
        mask, keeps = selected
        low = torch.finfo(logits.meta["val"].dtype).min
        way = (aten.where.ScalarOther, logits, low) if keeps else (aten.where.ScalarSelf, low, logits)
        logits = make(way[0], mask, *way[1:])
    found = make(aten.softmax.int, logits, -1)
    if not chosen_rows and level.live is not None:
        real = make(aten.unsqueeze.default, make(aten.unsqueeze.default, level.live, 1), 1)
        # A product, lest a recogniser takes the probabilities for changed where it meets them elsewhere.
        found = make(aten.matmul.default, make(aten.to.dtype, real, found.meta["val"].dtype), found)
    return make(aten.sum.dim_IntList, found, [1, 2])


def _first(make: Maker, level: Level) -> Node | None:
    """int64 (batch, 1): the place of each text's first token; None where that is 0 for all."""
    if level.live is None or level.index is not None:  # tokens that were kept stand first
        return None
    places = make.arange(level.size)
    return make(aten.amin.default, make(aten.where.ScalarOther, level.live, places, 1 << 30), [-1], True)


def _row(make: Maker, value: Node, at: Node | None) -> Node:
    """(batch or 1, heads or 1, 1, ...) of what has a row for each query, or one for all."""
    value = value if value.meta["val"].dim() == 4 else _four(make, value)
    shape = value.meta["val"].shape
    if isinstance(shape[2], int) and shape[2] == 1:
        return value
    if at is None:
        return make(aten.slice.Tensor, value, 2, 0, 1)
    rest = [shape[1], 1, shape[3] if isinstance(shape[3], int) else make(aten.sym_size.int, value, 3)]
    rest[0] = rest[0] if isinstance(rest[0], int) else make(aten.sym_size.int, value, 1)
    return at_rows(make, value, at, rest)


def at_rows(make: Maker, value: Node, at: Node, rest: Sequence[Any]) -> Node:
    shape = [make.batch, *rest]
    wide = make(aten.expand.default, make(aten.reshape.default, at, [make.batch, 1, 1, 1]), shape)
    first = value.meta["val"].shape[0]
    if isinstance(first, int) and first == 1:
        value = make(aten.expand.default, value, [make.batch, -1, -1, -1])
    return make(aten.gather.default, value, 2, wide)


def _four(make: Maker, value: Node) -> Node:
    while value.meta["val"].dim() < 4:
        value = make(aten.unsqueeze.default, value, 0)
    return value

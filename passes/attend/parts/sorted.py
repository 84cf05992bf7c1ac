"""Attention among queries and keys that stand near to each other once sorted by bucket, then by place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gathered import LOW, attended, inverse, joined, rows, within

_ITSELF = 1e5  # what a token's own score is lowered by where queries are keys (Reformer, appendix A)


@dataclass(frozen=True)
class Bucketed:
    """Queries and keys of tokens in buckets.

    q, k, v: (batch, heads, length, features). of_query, of_key: int64 (batch, heads, rounds, length), the
    buckets; padding has one behind all others. count: int64 (batch, 1), tokens that are no padding.
    shared: queries are keys, and a token sees itself only where it sees nothing else; otherwise always.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    of_query: Tensor
    of_key: Tensor
    count: Tensor
    scale: float
    shared: bool = False

    def blocks(self, size: int) -> Tensor:
        """(batch, heads, length, value_dim): a query sees the block of sorted keys that stands where its own
        does among sorted queries, and the block before; of several rounds the union."""
        labels = 2 * torch.arange(self.q.shape[2])
        return self._with_own(*_Items(self, labels, self.count, size, False).attention())

    def last(self, size: int) -> Tensor:
        """The same where tokens look back only: a query sees the last `size` keys of its own bucket, so that
        no later token moves a border. Keys and queries that differ are sorted together, each key before its
        own query, and the last 2 `size` of both are looked at."""
        labels = 2 * torch.arange(self.q.shape[2])
        if self.shared:
            return self._with_own(*_Items(self, labels, self.count, size, True).attention())
        q, k, v = (torch.cat(pair, 2) for pair in ((self.k, self.q), (self.k, self.q), (self.v, self.v)))
        buckets = torch.cat([self.of_key, self.of_query], 3)
        both = Bucketed(q, k, v, buckets, buckets, 2 * self.count, self.scale)
        items = _Items(both, torch.cat([labels, labels + 1]), both.count, 2 * size, True)
        length = self.q.shape[2]
        return self._with_own(*(x[:, :, :, length:] for x in items.attention()))

    def _with_own(self, values: Tensor, logs: Tensor) -> Tensor:
        """Rounds joined, and where keys are no queries each token's own key."""
        if not self.shared:
            logs = torch.cat([logs, (self.q * self.k).sum(3).unsqueeze(2) * self.scale], 2)
            values = torch.cat([values, self.v.unsqueeze(2)], 2)
        return joined(values, logs, 2)


@dataclass(frozen=True)
class _Items:
    """What is sorted: tokens, or keys and behind them queries.

    labels: int64 (items,), twice the place of a token; one more marks a query that is no key.
    count: int64 (batch, 1), items that are no padding. size: items to a block.
    """

    given: Bucketed
    labels: Tensor
    count: Tensor
    size: int
    causal: bool

    def attention(self) -> tuple[Tensor, Tensor]:
        """(batch, heads, rounds, items, value_dim) and (batch, heads, rounds, items), in their own order: the
        values of each round, and the log of the sum of exponentials of its keys."""
        given, size = self.given, self.size
        batch, heads, rounds, total = given.of_query.shape
        blocks = (total + size - 1) // size
        at_query = torch.arange(blocks * size).reshape(blocks, size, 1)
        at_key = at_query[:, :1] + torch.arange(-size, size)
        orders = [self._order(given.of_query)]
        orders.append(orders[0] if given.of_key is given.of_query else self._order(given.of_key))
        query, key = (
            order.index_select(3, within(at, total).reshape(-1)).reshape(batch, heads, -1)
            for order, at in zip(orders, (at_query, at_key), strict=True)
        )
        places = [inverse(order) for order in orders]

        def of_query(x: Tensor) -> Tensor:
            return x.reshape(batch, heads, rounds, blocks, size, -1)

        def of_key(x: Tensor) -> Tensor:
            return x.reshape(batch, heads, rounds, blocks, -1, 2 * size)

        def near(one: int) -> Tensor:
            """Which keys the queries see in a round."""
            to_query = lambda x: of_query(x[:, :, one].gather(2, query))
            to_key = lambda x: of_key(x[:, :, one].gather(2, key))
            away = to_query(places[0]), to_key(places[1])
            if not self.causal:
                blocks_away = away[0] // size - away[1] // size
                return (blocks_away == 0) | (blocks_away == 1)
            same = to_query(given.of_query) == to_key(given.of_key)
            return same & (away[1] <= away[0]) & (away[1] >= away[0] - size)

        k, v = (rows(x, key).reshape(batch, heads, rounds, blocks, 2 * size, -1) for x in (given.k, given.v))
        scores = of_query(rows(given.q, query)) @ k.transpose(4, 5) * given.scale
        labels = [self.labels.index_select(0, index.reshape(-1)) for index in (query, key)]
        itself = of_query(labels[0] // 2) == of_key(labels[1] // 2)
        seen = (at_key >= 0) & (at_key < self.count[:, :, None, None, None, None])
        seen = seen & of_key(labels[1] % 2 == 0)
        if self.causal or rounds > 1:
            shown = [near(one) for one in range(rounds)]
            times = torch.stack([one.to(scores.dtype) for one in shown]).sum(0)
            scores = scores - torch.log(times.clamp(min=1))  # a key that several rounds show counts once
            seen = seen & torch.stack([one[:, :, number] for number, one in enumerate(shown)], 2)
        if given.shared:
            scores = torch.where(itself, scores - _ITSELF, scores)
        else:
            seen = seen & ~itself
        values, logs = attended(torch.where(seen, scores, LOW), v)
        back = (places[0] + torch.arange(rounds).reshape(rounds, 1) * (blocks * size)).reshape(
            batch, heads, -1
        )
        values = rows(values.reshape(batch, heads, rounds * blocks * size, -1), back)
        logs = logs.reshape(batch, heads, -1).gather(2, back)
        return values.reshape(batch, heads, rounds, total, -1), logs.reshape(batch, heads, rounds, total)

    def _order(self, buckets: Tensor) -> Tensor:
        """int64 (batch, heads, rounds, items); no two are equal, so every way of sorting gives the same."""
        return torch.sort(buckets * (2 * self.labels.shape[0]) + self.labels, dim=3, stable=True)[1]

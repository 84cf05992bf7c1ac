"""Rows taken by their places, tokens counted, and attentions over parts of the keys joined to one."""

from __future__ import annotations

import torch
from torch import Tensor

from .kind import Heads

LOW = -1e30  # the score of a key that is not seen: finite, so that a row without any gives a mean, not NaN


def tokens(heads: Heads) -> tuple[Tensor, Tensor]:
    """(bool (batch, length), which places hold a token; int64 (batch, 1), how many do)."""
    keep = heads.keep
    if keep is None:
        keep = torch.ones(heads.q.shape[0], heads.q.shape[2], dtype=torch.bool)
    return keep, keep.to(torch.int64).sum(1, keepdim=True)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """(batch, heads, M, features) of (batch, heads, N, features) at int64 (batch, heads, M): one lookup of
    whole rows, which is what runtimes copy fastest."""
    batch, heads, count, width = x.shape
    first = torch.arange(batch * heads).reshape(batch, heads, 1) * count
    found = x.reshape(batch * heads * count, width).index_select(0, (first + index).reshape(-1))
    return found.reshape(batch, heads, -1, width)


def inverse(order: Tensor) -> Tensor:
    """Where each item of a permutation stands in it, along the last axis."""
    places = torch.arange(order.shape[-1]).expand(order.shape)
    return torch.zeros_like(order).scatter(-1, order, places)


def within(places: Tensor, count: int) -> Tensor:
    """Places moved into 0 to count - 1, for lookups whose results are left out where they were not."""
    return torch.minimum(places, torch.arange(count).amax(0)).clamp(min=0)


def attended(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(values, log of the sum of exponentials) of queries that see some of the keys.

    Args:
        scores: (..., queries, keys), LOW where a key is not seen. v: (..., keys, value_dim).
    """
    most = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - most)
    total = weights.sum(-1, keepdim=True)
    return (weights @ v) / total, (most + torch.log(total)).squeeze(-1)


def joined(values: Tensor, logs: Tensor, axis: int) -> Tensor:
    """Attentions over disjoint keys as one over all of them: weighted by what each summed up to.

    Args:
        values: with one axis more than logs, the last. axis: that parts lie along, from the front.
    """
    return (logs.softmax(axis).unsqueeze(-1) * values).sum(axis)


def best(scores: Tensor, count: int) -> Tensor:
    """int64 (..., count): where the largest scores stand along the last axis, of equals the first.

    Told by whole numbers, all different: no runtime says which of equal floats it takes.

    Args:
        scores: below a million in size, told apart to the 24th binary place. count: at most as many as there
            are.
    """
    places = torch.arange(scores.shape[-1])
    whole = (scores.clamp(-1e6, 1e6) * 2**24).to(torch.int64)
    return torch.topk(whole * scores.shape[-1] - places, count, dim=-1)[1]


def looked_up(x: Tensor, index: Tensor) -> Tensor:
    """Numbers of (batch, heads, N) at int64 (batch, heads, ...)."""
    return x.gather(2, index.reshape(*index.shape[:2], -1)).reshape(index.shape)

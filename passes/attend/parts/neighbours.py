"""Values of neighbours, weighed by kernels that sum to one over those that are there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Heads, Seen
from .maps import rows

_LEAST = 1e-6  # of a mean probability, so that its logarithm is finite
_RIDGE = 1e-3


def reach(width: int, causal: bool) -> tuple[int, int]:
    """How many places before and behind its own a kernel covers."""
    return (width - 1, 0) if causal else (width // 2, width // 2)


def convolved(heads: Heads, v: Tensor, logits: Tensor, width: int) -> Tensor:
    """(batch, heads, length, value_dim): a softmax over the neighbours that are tokens weighs their values
    (Wu et al., 2019, arXiv:1901.10430, sections 3 and 4), so that padding and the ends are never seen.

    Args:
        logits: (heads, 1, width), or (batch, heads, length, width) where each place has its own.
    """
    before, behind = reach(width, heads.causal)
    weights, length = (logits - logits.amax(-1, keepdim=True).detach()).exp(), v.shape[2]
    tokens = (
        torch.ones_like(v[:1, :1, :, :1]) if heads.keep is None else heads.keep[:, None, :, None].to(v.dtype)
    )
    values = functional.pad(v * tokens, (0, 0, before, behind))
    tokens = functional.pad(tokens, (0, 0, before, behind))
    total, weight = torch.zeros_like(v), torch.zeros_like(v[..., :1])
    for place in range(width):
        by = weights[..., place : place + 1]
        total = total + by * values[:, :, place : place + length]
        weight = weight + by * tokens[:, :, place : place + length]
    return total / weight.clamp(min=1e-30)


def kernels(seen: Seen, width: int, causal: bool) -> Tensor:
    """(heads, width): logarithms of the mean attention to a neighbour, over the places that have it."""
    before, behind = reach(width, causal)
    total: Tensor | float = 0.0
    count: Tensor | float = 0.0
    for maps, _ in rows(seen):
        near, there = _near(maps, before, behind)
        total, count = total + near.sum(1), count + there.sum(0)
    assert isinstance(total, Tensor)
    assert isinstance(count, Tensor)
    return (total / count.clamp(min=1)).clamp(min=_LEAST).log().float()


def predicted(seen: Seen, width: int, causal: bool) -> tuple[Tensor, Tensor]:
    """(hidden, heads * width), (heads * width,): the least-squares map from what a place holds to logarithms
    of its attention to neighbours, with a ridge; where it has no such neighbour, to those of the mean."""
    before, behind = reach(width, causal)
    mean = kernels(seen, width, causal).double()

    def pairs(maps: Tensor) -> Tensor:
        near, there = _near(maps, before, behind)
        share = near / near.sum(-1, keepdim=True).clamp(min=_LEAST)
        return torch.where(there, share.clamp(min=_LEAST).log(), mean[:, None]).transpose(0, 1).flatten(1)

    return fitted((x, pairs(maps)) for maps, x in rows(seen))


def fitted(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(weight (inputs, outputs), bias (outputs,)) of the least-squares map over pairs of rows, in float64."""
    gram: Tensor | float = 0.0
    product: Tensor | float = 0.0
    for x, y in pairs:
        one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        gram, product = gram + one.T @ one, product + one.T @ y
    assert isinstance(gram, Tensor)
    assert isinstance(product, Tensor)
    size = gram.diagonal()[:-1].mean().clamp(min=_LEAST)  # of inputs that may all be zero
    ridge = _RIDGE * size * torch.eye(len(gram), dtype=gram.dtype)
    ridge[-1, -1] = 0
    found = torch.linalg.solve(gram + ridge, product)
    return found[:-1].float(), found[-1].float()


def _near(maps: Tensor, before: int, behind: int) -> tuple[Tensor, Tensor]:
    """((heads, tokens, width) attention to neighbours, (tokens, width) whether they are there)."""
    padded = functional.pad(maps, (before, behind))
    at = torch.arange(maps.shape[1])[:, None] + torch.arange(before + behind + 1)
    near = padded.gather(2, at.expand(len(maps), -1, -1))
    return near, (at >= before) & (at < maps.shape[1] + before)

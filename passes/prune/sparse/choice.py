"""Which weights stay: the highest scores that a pattern allows."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .patterns import Scope, Sparsity


def kept(
    pattern: Sparsity, scores: Mapping[str, torch.Tensor], sparsity: float, scope: Scope
) -> dict[str, torch.Tensor]:
    """True where a weight stays, for each matrix.

    Args:
        scores: by name, (outputs, inputs), floating: the highest stay, of blocks by their sums; of equal
            ones the first.
        sparsity: the share that goes, to the nearest block; n:m has its own.
        scope: "model" ranks the blocks of all matrices together.
    """
    if pattern.few:
        return {name: _of_each(one, *pattern.few) for name, one in scores.items()}
    sums = {name: _blocks(one, *pattern.block) for name, one in scores.items()}
    if scope == "matrix":
        ranked = {name: _top(one.reshape(-1), sparsity) for name, one in sums.items()}
    else:
        together = _top(torch.cat([one.reshape(-1) for one in sums.values()]), sparsity)
        parts = together.split([one.numel() for one in sums.values()])
        ranked = dict(zip(sums, parts, strict=True))
    r, c = pattern.block
    return {
        name: ranked[name].view(one.shape).repeat_interleave(r, 0).repeat_interleave(c, 1)
        for name, one in sums.items()
    }


def _blocks(scores: torch.Tensor, r: int, c: int) -> torch.Tensor:
    """The sum of each block of r outputs and c inputs."""
    return scores.reshape(scores.shape[0] // r, r, scores.shape[1] // c, c).sum((1, 3))


def _of_each(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """True for the n highest of every m."""
    groups = scores.reshape(-1, m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros(groups.shape, dtype=torch.bool)
    return kept.scatter_(1, order[:, :n], True).view(scores.shape)


def _top(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """True for the highest, exactly as many as stay."""
    gone = round(sparsity * scores.numel())
    if not gone or gone == scores.numel():
        return torch.full(scores.shape, not gone)
    edge = scores.kthvalue(gone).values
    kept = scores > edge
    equal = (scores == edge).nonzero().flatten()
    kept[equal[: scores.numel() - gone - int(kept.sum())]] = True
    return kept

"""Spherical k-means, head by head, when a kind is written."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ROUNDS, _MOST = 10, 16384  # vectors that are looked at


def kmeans(units: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centroids of unit length (heads, clusters, features), from vectors that were drawn.

    Args:
        units: (heads, vectors, features), of unit length.
    """
    heads, count, width = units.shape
    chosen = torch.randperm(count, generator=generator)[:_MOST]
    units = units[:, chosen].float()
    found = _spread(units, clusters, generator)
    for _ in range(_ROUNDS):
        nearest = (units @ found.transpose(1, 2)).argmax(2)
        sums = torch.zeros(heads, clusters, width).scatter_add(
            1, nearest.unsqueeze(2).expand(-1, -1, width), units
        )
        found = torch.where(sums.square().sum(2, keepdim=True) > 0, functional.normalize(sums, dim=2), found)
    return found


def _spread(units: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Vectors to start from, each drawn by how far it is from those before (k-means++; Arthur and
    Vassilvitskii, 2007)."""
    every = torch.arange(len(units))
    found = [units[:, 0]]
    near = torch.full(units.shape[:2], -1.0)
    for _ in range(clusters - 1):
        near = torch.maximum(near, (units @ found[-1].unsqueeze(2)).squeeze(2))
        drawn = torch.multinomial((1 - near).clamp(min=1e-6), 1, generator=generator).squeeze(1)
        found.append(units[every, drawn])
    return torch.stack(found, 1)

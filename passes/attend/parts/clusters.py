"""Vectors in clusters, of each text and head by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gathered import inverse, looked_up, rows, within


@dataclass(frozen=True)
class Clusters:
    """of: int64 (batch, heads, length), the cluster of each token. held: float (batch, heads, clusters,
    length), 1 where a cluster holds a token, 0 elsewhere and at padding."""

    of: Tensor
    held: Tensor

    def means(self, x: Tensor) -> Tensor:
        """(batch, heads, clusters, features); zeros of a cluster without tokens."""
        return (self.held @ x) / self.held.sum(3, keepdim=True).clamp(min=1)

    def blocks(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens cut into blocks of one cluster each, the last one of a cluster filled up with any.

        Returns:
            int64 (batch, heads, blocks * size), the token at each place; (batch, heads, blocks), the cluster
            of each block; (batch, heads, length), the place of each token.
        """
        many, length = self.held.shape[2:]
        sizes = self.held.sum(3).to(torch.int64)
        padding = self.held.sum(2) == 0
        in_order = torch.where(padding, many, self.of) * length + torch.arange(length)
        order = torch.sort(in_order, dim=2, stable=True)[1]
        first = sizes.cumsum(2) - sizes
        full = (sizes + size - 1) // size
        ends = full.cumsum(2)
        shift = first - (ends - full) * size  # from a place among blocks to one in order
        block = torch.arange((length + size - 1) // size + many)
        cluster = (block[:, None] >= ends.unsqueeze(2)).to(torch.int64).sum(3).clamp(max=many - 1)
        place = torch.arange(size) + block[:, None] * size
        token = looked_up(order, within(place + looked_up(shift, cluster).unsqueeze(3), length))
        slot = inverse(order) - looked_up(shift, self.of)
        return token.reshape(*token.shape[:2], -1), cluster, torch.where(padding, 0, slot)


def clusters(x: Tensor, keep: Tensor, count: Tensor, many: int, iterations: int) -> Clusters:
    """By Lloyd's algorithm, from vectors evenly spaced over a text's tokens.

    Args:
        x: (batch, heads, length, features). keep, count: bool (batch, length), int64 (batch, 1).
    """
    batch, heads, length, _ = x.shape
    places = torch.arange(length)
    order = torch.sort(torch.where(keep, places, places + length), dim=1, stable=True)[1]
    start = order.gather(1, torch.arange(many) * count // many)
    centers = rows(x, start.unsqueeze(1).expand(batch, heads, many))
    for _ in range(iterations):
        found = _nearest(x, centers, keep)
        empty = found.held.sum(3, keepdim=True) == 0
        centers = torch.where(empty, centers, found.means(x))
    return _nearest(x, centers, keep)


def _nearest(x: Tensor, centers: Tensor, keep: Tensor) -> Clusters:
    near = x @ centers.transpose(2, 3) - (centers * centers).sum(3).unsqueeze(2) / 2
    of = near.argmax(3)
    held = (of.unsqueeze(2) == torch.arange(centers.shape[2])[:, None]) & keep[:, None, None, :]
    return Clusters(of, held.to(x.dtype))

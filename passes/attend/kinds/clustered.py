"""Queries in clusters: attention of their means, and once more to the keys that those look at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..parts.clusters import Clusters, clusters
from ..parts.gathered import LOW, best, rows, tokens, within
from ..parts.kind import Heads, Mixing

_BLOCK = 32  # queries of one cluster that are scored together


@dataclass(frozen=True)
class Clustered(Mixing):
    """Improved clustered attention (Vyas et al., 2020, arXiv:2007.04825, sections 3.2 and 3.3).

    A cluster's mean query sees all keys. Of what it gives to its `top` keys, every query of the cluster gives
    each its own part; all other keys get from every query what they get from the mean one. Clusters are found
    by Lloyd's algorithm on each text's queries, from queries evenly spaced over the text (the paper's runs on
    63 signs of projections, for its kernels' sake, from random ones).

    clusters: of each text and head; with as many as tokens, every query is its own. top: keys; 0 for the
    plain form. iterations: of Lloyd's algorithm.
    """

    looks_back: ClassVar[bool] = False  # a mean over queries knows later ones

    clusters: int = 32
    top: int = 32
    iterations: int = 3

    def __post_init__(self) -> None:
        for name, least in (("clusters", 1), ("top", 0), ("iterations", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, and {least} at least")

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        keep, count = tokens(heads)
        found = clusters(heads.q, keep, count, self.clusters, self.iterations)
        scores = found.means(heads.q) @ heads.k.transpose(2, 3) * heads.scale
        scores = torch.where(keep[:, None, None, :], scores, LOW)
        weights = scores.softmax(-1)
        if not self.top:
            return rows(weights @ heads.v, found.of)
        return self._improved(heads, count, found, scores, weights)

    def _improved(
        self, heads: Heads, count: Tensor, found: Clusters, scores: Tensor, weights: Tensor
    ) -> Tensor:
        batch, many, length, _ = heads.q.shape
        shape = (batch, many, self.clusters)
        wide = torch.cat([scores, torch.full((*shape, self.top), LOW)], 3)
        key = within(best(wide, self.top), length)  # of fewer keys than `top`, some more that are left out
        real = (torch.arange(self.top) < count)[:, None, None, :]
        given = torch.where(real, weights.gather(3, key), 0.0)
        flat = key.reshape(batch, many, -1)
        k, v = (rows(x, flat).reshape(*shape, self.top, -1) for x in (heads.k, heads.v))
        rest = weights @ heads.v - (given.unsqueeze(3) @ v).squeeze(3)
        query, cluster, slot = found.blocks(_BLOCK)
        each = lambda x: rows(x.reshape(*shape, -1), cluster).reshape(batch, many, -1, *x.shape[3:])
        q = rows(heads.q, query).reshape(batch, many, -1, _BLOCK, heads.q.shape[3])
        inside = torch.where(real.unsqueeze(3), q @ each(k).transpose(3, 4) * heads.scale, LOW)
        values = inside.softmax(-1) @ each(v)
        share = given.sum(3, keepdim=True)
        values = rows(values.reshape(batch, many, -1, values.shape[4]), slot)
        return values * rows(share, found.of) + rows(rest, found.of)

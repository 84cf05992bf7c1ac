"""Queries and keys that are nearest to the same centroid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..parts.gathered import LOW, attended, best, joined, looked_up, rows, tokens
from ..parts.kind import Heads, Mixing, Seen
from ..parts.kmeans import kmeans
from ..parts.site import Site
from ..parts.sorted import Bucketed


@dataclass(frozen=True)
class Routing(Mixing):
    """Routing Transformer's attention (Roy et al., 2020, arXiv:2003.05997, section 4.1).

    Every centroid takes the queries nearest to it, and as many keys: of a text with n tokens n coverage /
    clusters each, rounded up. A query sees the keys of the centroids that took it, the `coverage` nearest
    ones at most, joined by the sums of their exponentials; one that none took gets its own value. The paper
    trains centroids with the model; here spherical k-means finds them on texts. Queries and keys, which the
    paper shares where it looks back, stay apart, and are compared less their own means over the texts: they
    lie in different places otherwise, and a shift of all keys changes no softmax.

    Looking back only, no token may depend on which later ones a centroid takes: a query belongs to its
    nearest centroid, and sees itself and the last keys there, `block` on average.

    clusters: centroids. coverage: of how many a token is one on average; as many as clusters is full
    attention. block: keys where queries look back only.
    """

    needs_texts: ClassVar[bool] = True

    clusters: int = 16
    coverage: int = 2
    block: int = 64

    def __post_init__(self) -> None:
        for name in ("clusters", "coverage", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and 1 at least")
        if self.coverage > self.clusters:
            raise ValueError(f"coverage is {self.coverage}, and no more than the {self.clusters} clusters")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        assert seen is not None
        kept: list[tuple[Tensor, Tensor]] = []
        for heads in seen():
            keep, _ = tokens(heads)
            kept.append((heads.q.transpose(1, 2)[keep], heads.k.transpose(1, 2)[keep]))
        q, k = (torch.cat(list(x)).transpose(0, 1) for x in zip(*kept, strict=True))
        means = q.mean(1, keepdim=True), k.mean(1, keepdim=True)
        units = torch.cat([_unit(q, means[0]), _unit(k, means[1])], 1)
        return {"centroids": kmeans(units, self.clusters, generator), "query": means[0], "key": means[1]}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        keep, count = tokens(heads)
        near = [
            own["centroids"] @ _unit(x, own[name]).transpose(2, 3)
            for x, name in ((heads.q, "query"), (heads.k, "key"))
        ]
        if heads.causal:
            query, key = (torch.where(keep[:, None], x.argmax(2), self.clusters).unsqueeze(2) for x in near)
            found = Bucketed(heads.q, heads.k, heads.v, query, key, count, heads.scale)
            return found.last(self.block)
        near = [torch.where(keep[:, None, None, :], x, -2.0) for x in near]
        return self._routed(heads, count, *near)

    def _routed(self, heads: Heads, count: Tensor, near_query: Tensor, near_key: Tensor) -> Tensor:
        batch, many, length, _ = heads.q.shape
        most = (length * self.coverage + self.clusters - 1) // self.clusters
        query, key = best(near_query, most), best(near_key, most)
        taken = torch.arange(most) * self.clusters < count * self.coverage  # of so long a text
        taken = taken[:, None, None, :]
        flat = lambda x: x.reshape(batch, many, -1)
        blocked = lambda x, index: rows(x, flat(index)).reshape(batch, many, self.clusters, most, -1)
        scores = blocked(heads.q, query) @ blocked(heads.k, key).transpose(3, 4) * heads.scale
        values, logs = attended(torch.where(taken.unsqueeze(3), scores, LOW), blocked(heads.v, key))

        slots = torch.arange(most).expand(query.shape)
        slot = torch.full_like(near_query, -1, dtype=torch.int64)
        slot = slot.scatter(3, query, torch.where(taken, slots, -1)).transpose(2, 3)
        affinity = torch.where(slot >= 0, near_query.transpose(2, 3), -2.0)
        centroid = best(affinity, self.coverage)
        slot = slot.gather(3, centroid)
        index = flat(centroid * most + slot.clamp(min=0))
        shape = (batch, many, length, self.coverage)
        logs = torch.where(slot >= 0, looked_up(flat(logs), index).reshape(shape), LOW)
        values = rows(values.reshape(batch, many, self.clusters * most, -1), index).reshape(*shape, -1)
        return torch.where((slot >= 0).any(3, keepdim=True), joined(values, logs, 3), heads.v)


def _unit(x: Tensor, mean: Tensor) -> Tensor:
    x = x - mean
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-24)

"""Attention by random features of the softmax's kernel: FAVOR+."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.kernels import weighed
from ..parts.kind import Heads, Mixing, Seen
from ..parts.site import Site
from ..parts.write import parameter

_HIGHEST = 60.0  # of an exponent of e in float32, beside a sum over keys


@dataclass(frozen=True)
class Performer(Mixing):
    """exp(q k) as the mean over features w of exp(w q - |q|^2 / 2) exp(w k - |k|^2 / 2), w orthogonal and as
    long as normal vectors are (Choromanski et al., 2020, arXiv:2009.14794, lemma 1 and section 2.4).

    The farther queries and keys lie from 0, the more features it takes. A softmax doesn't change where all
    keys are moved, nor where a query's mean is taken from it and put into the keys' weights; so where texts
    are given, both are taken from their means over them.

    What is subtracted from exponents cancels: of a query its largest one, of keys the largest among the kept
    ones of a text; where they look back only, which must not see later ones, what the largest of all possible
    keys exceeds e^60 by.

    features: how many. learned: whether they learn. chunk: see `linear`.
    """

    features: int = 256
    learned: bool = False
    chunk: int = 64

    def __post_init__(self) -> None:
        for name in ("features", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and 1 at least")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        features = _orthogonal(self.features, site.attention.head_dim, generator)
        found = {"features": parameter(features) if self.learned else features}
        return found | (_means(seen) if seen is not None else {})

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        root, w = heads.scale**0.5, own["features"]
        q, k = heads.q * root, heads.k * root
        towards = w
        if "query" in own:
            q, k = q - own["query"], k - own["key"]
            towards = w + own["query"]  # (heads, features, head_dim)
        q = q @ w.t()
        k = k @ towards.transpose(-1, -2) - k.square().sum(-1, keepdim=True) / 2
        if heads.keep is not None:
            k = torch.where(heads.keep[:, None, :, None], k, torch.finfo(k.dtype).min)
        if heads.causal:
            most = (towards.square().sum(-1).amax(-1) / 2 - _HIGHEST).clamp(min=0)[..., None, None]
        else:
            most = k.amax((2, 3), keepdim=True)
        q, k = (q - q.amax(-1, keepdim=True).detach()).exp(), (k - most.detach()).exp()
        return weighed(q, k, heads, self.chunk)


def _orthogonal(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, size): blocks of orthogonal rows, each as long as a normal vector and of any direction, as
    LAPACK's are not before R's diagonal is made positive (Mezzadri, 2006, arXiv:math-ph/0609050)."""
    blocks = torch.randn(-(-count // size), size, size, generator=generator)
    q, r = torch.linalg.qr(blocks)
    rows = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).transpose(1, 2).flatten(0, 1)[:count]
    return rows * torch.randn(count, size, generator=generator).norm(dim=1, keepdim=True)


def _means(seen: Seen) -> dict[str, Tensor]:
    """(heads, 1, head_dim) of queries and keys, over kept places, scaled as their products are."""
    found: dict[str, list[Tensor]] = {"query": [], "key": []}
    count = 0
    for heads in seen():
        batch, _, length, _ = heads.q.shape
        keep = heads.keep if heads.keep is not None else torch.ones(batch, length, dtype=torch.bool)
        count += int(keep.sum())
        for name, x in (("query", heads.q), ("key", heads.k)):
            found[name].append((x * keep[:, None, :, None]).sum((0, 2)) * heads.scale**0.5)
    return {name: torch.stack(sums).sum(0)[:, None] / max(count, 1) for name, sums in found.items()}

"""Attention without a softmax: products of positive features, summed over keys once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ..parts.kind import Heads, Mixing


@dataclass(frozen=True)
class Linear(Mixing):
    """phi(q) (phi(K)^T V) / (phi(q) sum phi(K)), phi = elu + 1 (Katharopoulos et al., 2020, arXiv:2006.16236,
    section 3.2): time and memory linear in the length."""

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        root = heads.scale**0.5
        q, k = functional.elu(heads.q * root) + 1, functional.elu(heads.k * root) + 1
        if heads.keep is not None:
            k = k * heads.keep[:, None, :, None].to(k.dtype)
        total = q @ k.sum(2, keepdim=True).transpose(2, 3)
        return (q @ (k.transpose(2, 3) @ heads.v)) / (total + 1e-6)

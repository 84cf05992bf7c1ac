"""Attention without a softmax: products of positive features, summed over keys once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ..parts.kernels import weighed
from ..parts.kind import Heads, Mixing


@dataclass(frozen=True)
class Linear(Mixing):
    """phi(q) (phi(K)^T V) / (phi(q) sum phi(K)), phi(x) = elu(x) + 1 (Katharopoulos et al., 2020,
    arXiv:2006.16236, sections 3.2 and 3.3): time and memory linear in the length.

    chunk: places that a model which looks back only takes at once.
    """

    chunk: int = 64

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}, and 1 at least")

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        root = heads.scale**0.5
        return weighed(_positive(heads.q * root), _positive(heads.k * root), heads, self.chunk)


def _positive(x: Tensor) -> Tensor:
    """elu(x) + 1, whose sum would round small ones to zero."""
    return x.clamp(max=0).exp() + functional.relu(x)

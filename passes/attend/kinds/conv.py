"""Convolutions over neighbours in the place of attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..parts.kind import Heads, Mixing, Seen
from ..parts.neighbours import convolved, kernels, predicted
from ..parts.site import Site
from ..parts.write import parameter


@dataclass(frozen=True)
class Conv(Mixing):
    """Lightweight convolution (Wu et al., 2019, arXiv:1901.10430, section 3): each head weighs its
    neighbours' values by one kernel under a softmax, or dynamic convolution (section 4): by one that is
    predicted from what a place holds. Time and memory are linear in the length.

    Kernels begin as the mean attention to each distance on the texts, predictions as the least-squares map to
    its logarithms. A neighbour that is padding is left out and the others sum to one; models that look back
    have kernels that do.

    kernel: places that it covers, an odd number. dynamic: kernels are predicted.
    """

    needs_texts: ClassVar[bool] = True

    kernel: int = 31
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}, and an odd number of places")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        return started(seen, self.kernel, site.causal, self.dynamic)

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        return convolved(heads, heads.v, logits(heads, own, self.kernel), self.kernel)


def started(seen: Seen | None, width: int, causal: bool, dynamic: bool) -> dict[str, Tensor]:
    """Kernels of all heads, or what predicts them."""
    assert seen is not None  # it needs texts
    if not dynamic:
        return {"kernels": parameter(kernels(seen, width, causal))}
    weight, bias = predicted(seen, width, causal)
    return {"weight": parameter(weight), "bias": parameter(bias)}


def logits(heads: Heads, own: Mapping[str, Tensor], width: int) -> Tensor:
    """As `convolved` takes them."""
    if "kernels" in own:
        return own["kernels"][:, None]
    batch, length, _ = heads.x.shape
    found = heads.x @ own["weight"] + own["bias"]
    return found.reshape(batch, length, -1, width).transpose(1, 2)

"""Attention that fades out at a distance which each head learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.kind import Heads, Mixing, Seen
from ..parts.maps import scores, shown, softmax
from ..parts.site import Site
from ..parts.write import parameter


@dataclass(frozen=True)
class AdaptiveSpan(Mixing):
    """m(|i - j|) exp(score) / sum of those, m(x) = min(max((ramp + z - x) / ramp, 0), 1), z a head's span
    (Sukhbaatar et al., 2019, arXiv:1905.07799, equations 2 and 3). Scores are as many as in full attention; a
    layer's largest z and the ramp tell, once trained, how wide a window would do.

    The parameters `attend.LAYER.spans` are spans as shares of `span`, as in the paper's code, so that usual
    steps move them.

    span: of each head at first, in tokens. ramp: tokens over which a key fades out beyond it.
    """

    span: int = 256
    ramp: int = 32

    def __post_init__(self) -> None:
        for name in ("span", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and 1 at least")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"spans": parameter(torch.ones(site.attention.heads))}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        places = torch.arange(heads.q.shape[2], dtype=heads.q.dtype)
        away = (places[:, None] - places[None]).abs()
        spans = own["spans"].clamp(min=0)[:, None, None] * self.span
        share = ((self.ramp + spans - away) / self.ramp).clamp(min=0, max=1)
        found = softmax(scores(heads), shown(heads)) * share
        return (found / found.sum(-1, keepdim=True).clamp(min=1e-30)) @ heads.v

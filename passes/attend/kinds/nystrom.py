"""Attention through a few landmarks: Nystroem's approximation of the softmax's matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..parts.kind import Heads, Mixing, Seen
from ..parts.places import places
from ..parts.site import Site
from ..parts.write import parameter


@dataclass(frozen=True)
class Nystrom(Mixing):
    """softmax(q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V, with Q~ and K~ the means over segments of a text
    (Xiong et al., 2021, arXiv:2102.03902, equation 13): time and memory linear in the length.

    Segments are of a text's kept tokens, as many as landmarks; a text of fewer tokens has a landmark for
    each. The pseudo-inverse is found by the paper's iteration (equation 11), which begins from each matrix'
    own norms: the authors' code takes the largest of the batch, on which a text's vector then depends.

    landmarks: segments. iterations: of the pseudo-inverse; with as many landmarks as tokens, more of them
    come nearer to full attention. convolution: odd number of places that a convolution a head, which learns
    and starts at nothing, mixes values over beside it; 0 for none.
    """

    looks_back: ClassVar[bool] = False

    landmarks: int = 64
    iterations: int = 6
    convolution: int = 0

    def __post_init__(self) -> None:
        for name in ("landmarks", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and 1 at least")
        if self.convolution < 0 or (self.convolution and self.convolution % 2 == 0):
            raise ValueError(f"convolution is {self.convolution}, and odd, or 0 for none")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        if not self.convolution:
            return {}
        shape = site.attention.heads, 1, self.convolution, 1
        return {"convolution": parameter(1e-20 * torch.randn(shape, generator=generator))}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        members = self._members(heads)
        count = members.sum(-1, keepdim=True)
        q, k = (members @ x / count.clamp(min=1) for x in (heads.q * heads.scale, heads.k))
        some = count > 0
        near = _softmax(heads.q * heads.scale @ k.transpose(2, 3), some.transpose(2, 3))
        among = _softmax(q @ k.transpose(2, 3), some.transpose(2, 3)) * some.to(q.dtype)
        keep = heads.keep[:, None, None, :] if heads.keep is not None else None
        far = _softmax(q @ heads.k.transpose(2, 3), keep) @ heads.v
        mixed = near @ (_inverse(among, self.iterations) @ far)
        if self.convolution:
            v = heads.v * keep.transpose(2, 3).to(heads.v.dtype) if keep is not None else heads.v
            weight = own["convolution"]
            mixed = mixed + functional.conv2d(
                v, weight, padding=(self.convolution // 2, 0), groups=weight.shape[0]
            )
        return mixed

    def _members(self, heads: Heads) -> Tensor:
        """(batch or 1, 1, landmarks, length): 1 where a token is in a segment, else 0."""
        place, count = places(heads)
        share, start = (place * self.landmarks)[:, None], torch.arange(self.landmarks)[:, None]
        size = count.clamp(min=self.landmarks)[:, None]
        found = (share >= start * size) & (share < (start + 1) * size)  # no floor division: TVM 0.27 fails
        if heads.keep is not None:
            found = found & heads.keep[:, None]
        return found[:, None].to(heads.q.dtype)


def _softmax(scores: Tensor, shown: Tensor | None) -> Tensor:
    if shown is not None:
        scores = torch.where(shown, scores, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def _inverse(a: Tensor, iterations: int) -> Tensor:
    """The pseudo-inverse of each matrix, of numbers none of which is negative (equation 11)."""
    norms = a.sum(-1).amax(-1) * a.sum(-2).amax(-1)
    found = a.transpose(-1, -2) / norms.clamp(min=torch.finfo(a.dtype).tiny)[..., None, None]
    places = torch.arange(a.shape[-1])
    one = (places[:, None] == places).to(a.dtype)
    for _ in range(iterations):
        product = a @ found
        found = found @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return found

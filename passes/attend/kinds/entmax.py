"""Attention whose probabilities may be zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.kind import Heads, Mixing, Seen
from ..parts.maps import scores, shown, softmax
from ..parts.site import Site
from ..parts.write import parameter

_BELOW = -2.0  # of what is 1 below the largest and further, nothing is left


@dataclass(frozen=True)
class Entmax(Mixing):
    """[(alpha - 1) scores - tau]_+ ^ (1 / (alpha - 1)), tau such that they sum to one (Correia et al., 2019,
    arXiv:1909.00015, equation 5). Scores are as many as in full attention.

    alpha: 1 is softmax, 2 sparsemax (Martins and Astudillo, 2016, arXiv:1602.02068), 1.5 between; those three
    are exact. learned: each head learns its own between 1 and 2, from `alpha` on (section 3.2).
    iterations: halvings of where tau can be, where alpha is learned or another number; a Newton step follows.
    """

    alpha: float = 1.5
    learned: bool = False
    iterations: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.alpha <= 2:
            raise ValueError(f"alpha is {self.alpha}, and 1 (softmax) to 2 (sparsemax)")
        if self.learned and self.alpha in (1, 2):
            raise ValueError(f"alpha is {self.alpha}, and what is learned starts between 1 and 2")
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}, and 1 at least")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        if not self.learned:
            return {}
        return {"alpha": parameter(torch.full((site.attention.heads,), self.alpha - 1).logit())}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        logits, seen = scores(heads), shown(heads)
        if self.alpha == 1:
            return softmax(logits, seen) @ heads.v
        if self.learned:
            power: Tensor | float = own["alpha"].sigmoid()[:, None, None]  # alpha - 1
        else:
            power = self.alpha - 1
        if seen is not None:
            logits = torch.where(seen, logits, torch.finfo(logits.dtype).min)
        logits = logits - logits.amax(-1, keepdim=True).detach()
        logits = (logits.clamp(min=-1e4) * power).clamp(min=_BELOW)
        if not self.learned and power in (0.5, 1.0):
            return (_half if power == 0.5 else _sparsemax)(logits) @ heads.v
        return _bisected(logits, power, self.iterations) @ heads.v


def _half(z: Tensor) -> Tensor:
    """alpha = 1.5, by sorting (Peters et al., 2019, arXiv:1905.05702, algorithm 2). Derivatives go through
    the numbers of the support alone."""
    ordered, count = _sorted(z)
    mean, square = ordered.cumsum(-1) / count, (ordered * ordered).cumsum(-1) / count
    left = ((1 - count * (square - mean * mean)) / count).clamp(min=0)
    inside, size = _support(z, ordered, ordered >= mean - left.sqrt())
    mean = (z * inside).sum(-1, keepdim=True) / size
    away = ((z - mean) * inside).square().sum(-1, keepdim=True)
    return (z - (mean - ((1 - away) / size).clamp(min=1e-12).sqrt())).clamp(min=0).square()


def _sparsemax(z: Tensor) -> Tensor:
    """alpha = 2, by sorting (Martins and Astudillo, 2016, algorithm 1)."""
    ordered, count = _sorted(z)
    inside, size = _support(z, ordered, 1 + count * ordered > ordered.cumsum(-1))
    return (z - ((z * inside).sum(-1, keepdim=True) - 1) / size).clamp(min=0)


def _sorted(z: Tensor) -> tuple[Tensor, Tensor]:
    ordered = z.detach().sort(-1, descending=True)[0]
    return ordered, torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)


def _support(z: Tensor, ordered: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """(1 for each that belongs to it else 0, how many): as many of the largest as there are in `first`."""
    count = first.to(torch.int64).sum(-1, keepdim=True)
    inside = (z.detach() >= ordered.gather(-1, count - 1)).to(z.dtype)
    return inside, inside.sum(-1, keepdim=True)


def _bisected(z: Tensor, power: Tensor | float, iterations: int) -> Tensor:
    """Any alpha, power = alpha - 1. A last Newton step, whose slope is a constant, has the derivatives of the
    tau that is looked for (Correia et al., 2019, section 3.1 and proposition 1)."""
    fixed, root = z.detach(), 1 / power
    constant = root.detach() if isinstance(root, Tensor) else root
    tau = torch.full_like(fixed[..., :1], -1.0)
    step = 1.0
    for _ in range(iterations):
        step /= 2
        total = _powers(fixed, tau + step, constant).sum(-1, keepdim=True)
        tau = torch.where(total >= 1, tau + step, tau)
    slope = (constant * _powers(fixed, tau, constant - 1)).sum(-1, keepdim=True)
    tau = tau + (_powers(z, tau, root).sum(-1, keepdim=True) - 1) / slope
    return _powers(z, tau, root)


def _powers(z: Tensor, tau: Tensor, root: Tensor | float) -> Tensor:
    """[z - tau]_+ ^ root; zero where that is zero, as are its derivatives."""
    above = z - tau
    inside = above > 0
    return torch.where(inside, torch.where(inside, above, 1.0) ** root, 0.0)

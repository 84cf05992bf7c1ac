"""Second moments of a value and its target, by feature, and the affine map that is nearest to the target.

min over gamma, beta of sum (gamma x + beta - t)^2, for each feature by itself: gamma is the covariance of x
and t over the variance of x. Sums are float64 and of fixed size, whatever the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FLAT = 1e-12  # of the mean square: a variance below is rounding, and a feature without one says nothing


@dataclass
class Moments:
    """Sums over the rows seen so far, each (features,) and of differences to the first batch's mean."""

    count: int = 0
    origin: torch.Tensor | None = None
    x: torch.Tensor | float = 0.0
    t: torch.Tensor | float = 0.0
    xx: torch.Tensor | float = 0.0
    xt: torch.Tensor | float = 0.0

    def add(self, x: torch.Tensor, target: torch.Tensor) -> None:
        """Takes in rows, (rows, features) each; those with a number that is not finite are left out."""
        sound = x.isfinite().all(dim=1) & target.isfinite().all(dim=1)
        x, target = x[sound].double(), target[sound].double()
        if not len(x):
            return
        if self.origin is None:
            self.origin = x.mean(dim=0)
        x = x - self.origin
        self.count += len(x)
        self.x, self.t = self.x + x.sum(dim=0), self.t + target.sum(dim=0)
        self.xx, self.xt = self.xx + x.square().sum(dim=0), self.xt + (x * target).sum(dim=0)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(gamma, beta), float64 (features,). A feature that never varies gets gamma 0."""
        assert self.origin is not None
        assert isinstance(self.x, torch.Tensor)
        assert isinstance(self.t, torch.Tensor)
        x, t = self.x / self.count, self.t / self.count
        variance = self.xx / self.count - x.square()
        varies = variance > FLAT * (self.origin + x).square() + torch.finfo(torch.float64).tiny
        covariance = self.xt / self.count - x * t
        gamma = torch.where(varies, covariance / variance.where(varies, torch.ones_like(variance)), 0.0)
        return gamma, t - gamma * (self.origin + x)


@dataclass
class Distance:
    """How far an affine map's results are from the norm's, over rows that it was not fitted on.

    error: |difference|^2 over the norm's |deviation from its mean|^2. scale: the root mean square of the one
    over that of the other. largest: the same of the largest row of each.
    """

    count: int = 0
    away: float = 0.0
    mine: float = 0.0
    theirs: float = 0.0
    total: torch.Tensor | float = 0.0
    longest: tuple[float, float] = (0.0, 0.0)

    def add(self, found: torch.Tensor, target: torch.Tensor) -> None:
        sound = target.isfinite().all(dim=1)
        found, target = found[sound].double(), target[sound].double()
        if not len(target):
            return
        self.count += len(target)
        self.away += float((found - target).square().sum())
        self.mine += float(found.square().sum())
        self.theirs += float(target.square().sum())
        self.total = self.total + target.sum(dim=0)
        pairs = zip(self.longest, (found, target), strict=True)
        a, b = (max(known, float(rows.square().mean(dim=1).max().sqrt())) for known, rows in pairs)
        self.longest = (a, b)

    @property
    def error(self) -> float:
        mean = torch.as_tensor(self.total) / max(1, self.count)
        spread = self.theirs - self.count * float(mean.square().sum())
        return self.away / max(spread, torch.finfo(torch.float64).tiny)

    @property
    def scale(self) -> float:
        return (self.mine / max(self.theirs, torch.finfo(torch.float64).tiny)) ** 0.5

    @property
    def largest(self) -> float:
        return self.longest[0] / max(self.longest[1], torch.finfo(torch.float64).tiny)

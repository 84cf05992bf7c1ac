"""Ranges of numbers that stream past: what to map onto the integers, and what to clip.

Five estimators, each per tensor or per channel of the last axis:

* "min-max": everything seen (Krishnamoorthi, 2018, arXiv:1806.08342, section 3.1).
* "moving-average": each update's extremes, smoothed exponentially (Jacob et al., 2018, arXiv:1712.05877,
  section 3.1). The one whose answer depends on the order.
* "percentile": a share of the numbers is left out, half of it on each side unless symmetric (McKinstry et
  al., 2018, arXiv:1809.04191, section 3; Wu et al., 2020, arXiv:2004.09602, section 4.2).
* "entropy": the least Kullback-Leibler divergence between the numbers before and after (Migacz, 2017, "8-bit
  inference with TensorRT").
* "mse": the least mean squared error after rounding and clipping (Choukroun et al., 2019, arXiv:1902.06822,
  section 3; both ends searched).

The last three read a histogram of fixed size whose range doubles as it must: memory does not grow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, get_args

import numpy as np

from ..codes.affine import fit, integers
from .histogram import Bins, Histogram

Kind = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
KINDS: tuple[str, ...] = get_args(Kind)
Range = tuple[np.ndarray, np.ndarray]  # least and largest, float64, shape () or (channels,)

_SHRINK = 0.98 ** np.arange(200)  # candidates for an end of a range, as shares of the largest seen


class Estimator(ABC):
    """A range found from numbers given in parts.

    Args:
        channels: None for one range of all the numbers; else the size of their last axis.
    """

    def __init__(self, channels: int | None = None) -> None:
        self.channels = channels
        self.count = 0
        shape = () if channels is None else (channels,)
        self.least, self.most = np.full(shape, np.inf), np.full(shape, -np.inf)

    def update(self, values: np.ndarray) -> None:
        """Take in finite numbers: (..., channels), or any shape for one range."""
        if values.size == 0:
            return
        rows = values.reshape(-1) if self.channels is None else values.reshape(-1, self.channels)
        least, most = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        self._take(rows, least, most)
        self.least, self.most = np.minimum(self.least, least), np.maximum(self.most, most)
        self.count += values.size

    def range(self) -> Range:
        """The least and the largest number to represent.

        Raises:
            ValueError: no number was given.
        """
        if self.count == 0:
            raise ValueError("a range of no numbers was asked for")
        return self._range()

    @abstractmethod
    def _take(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        """Remember what an update has, beside the extremes and the count."""

    @abstractmethod
    def _range(self) -> Range: ...


class MinMax(Estimator):
    """From the least to the largest number seen."""

    def _take(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        """Extremes are all it takes."""

    def _range(self) -> Range:
        return self.least, self.most


class MovingAverage(Estimator):
    """Exponential averages of each update's least and largest number; the first update starts them.

    Args:
        momentum: share of the old average that an update keeps.
    """

    def __init__(self, channels: int | None = None, momentum: float = 0.9) -> None:
        super().__init__(channels)
        self.momentum = momentum
        self._average: Range | None = None

    def _take(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        old = self._average or (least, most)
        keep, new = self.momentum, 1 - self.momentum
        self._average = (keep * old[0] + new * least, keep * old[1] + new * most)

    def _range(self) -> Range:
        assert self._average is not None
        return self._average


class _FromHistogram(Estimator):
    """An estimator that looks at how the numbers are distributed, channel by channel."""

    coarsest: ClassVar[int | None] = None  # bins to look at, at most

    def __init__(self, channels: int | None = None, symmetric: bool = False) -> None:
        super().__init__(channels)
        self.symmetric = symmetric
        self.histogram = Histogram(channels or 1)

    def _take(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        self.histogram.add(rows.reshape(-1, self.channels or 1))

    def _range(self) -> Range:
        ends = [
            self._one(self.histogram.occupied(n, self.coarsest), float(least), float(most))
            for n, (least, most) in enumerate(zip(self.least.flat, self.most.flat, strict=True))
        ]
        low, high = (np.array(side).reshape(self.least.shape) for side in zip(*ends, strict=True))
        return low, high

    @abstractmethod
    def _one(self, bins: Bins, least: float, most: float) -> tuple[float, float]:
        """The range of one channel from its occupied bins and its extremes."""


class Percentile(_FromHistogram):
    """All but a share of the numbers.

    Args:
        share: of the numbers to keep, above 0 and at most 1.
    """

    def __init__(self, channels: int | None = None, symmetric: bool = False, share: float = 0.9999) -> None:
        super().__init__(channels, symmetric)
        self.share = share

    def _one(self, bins: Bins, least: float, most: float) -> tuple[float, float]:
        x, counts = bins.centres, bins.counts
        if self.symmetric:
            order = np.argsort(np.abs(x), kind="stable")
            end = _quantile(np.abs(x)[order], counts[order], self.share)
            ends = -end, end
        else:
            tail = (1 - self.share) / 2
            ends = _quantile(x, counts, tail), _quantile(x, counts, 1 - tail)
        low, high = np.clip(ends, least, most)  # a bin's centre may lie past the last number
        return float(low), float(high)


class Entropy(_FromHistogram):
    """The range, both ends shrunk alike, after which the distribution differs least from before."""

    coarsest: ClassVar[int | None] = 1 << 12  # finer ones are mostly empty: nothing would be seen to be lost

    def __init__(self, channels: int | None = None, symmetric: bool = False, bits: int = 8) -> None:
        super().__init__(channels, symmetric)
        self.bits = bits

    def _one(self, bins: Bins, least: float, most: float) -> tuple[float, float]:
        low, high = _around_zero(least, most, self.symmetric)
        best, found = np.inf, (low, high)
        for share in _SHRINK:
            if (high - low) * share < bins.width * 2**self.bits:
                break  # a level would be narrower than a bin, and lose nothing that could be seen
            divergence = _divergence(bins, low * share, high * share, self.bits, self.symmetric)
            if divergence < best:
                best, found = divergence, (low * share, high * share)
        return found


class MeanSquaredError(_FromHistogram):
    """The range that loses least to rounding and clipping together, each end searched in turn, twice."""

    def __init__(self, channels: int | None = None, symmetric: bool = False, bits: int = 8) -> None:
        super().__init__(channels, symmetric)
        self.bits = bits

    def _one(self, bins: Bins, least: float, most: float) -> tuple[float, float]:
        low, high = _around_zero(least, most, self.symmetric)
        if low == high:
            return 0.0, 0.0
        lows, highs = low * _SHRINK, high * _SHRINK
        if self.symmetric:
            best = int(np.argmin(self._errors(bins, lows, highs)))
            return float(lows[best]), float(highs[best])
        for _ in range(2):
            if highs[0] > 0:
                high = float(highs[np.argmin(self._errors(bins, np.full_like(highs, low), highs))])
            if lows[0] < 0:
                low = float(lows[np.argmin(self._errors(bins, lows, np.full_like(lows, high)))])
        return low, high

    def _errors(self, bins: Bins, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """The squared error with each candidate."""
        x, counts = bins.centres, bins.counts
        first, last = integers(self.bits)
        errors = []
        for low, high in zip(lows, highs, strict=True):
            after = fit(low, high, first, last, symmetric=self.symmetric).simulate(x)
            errors.append(float(((after - x) ** 2 * counts).sum()))
        return np.array(errors)


def estimator(
    kind: Kind, channels: int | None = None, *, symmetric: bool = False, bits: int = 8, share: float = 0.9999
) -> Estimator:
    """The estimator of a kind.

    Args:
        channels: None for one range; else the size of the numbers' last axis, a range for each.
        symmetric: the range is to be mapped symmetrically around 0.
        bits: of the integers that the range is for ("entropy", "mse").
        share: of the numbers to keep ("percentile").
    """
    if kind == "min-max":
        return MinMax(channels)
    if kind == "moving-average":
        return MovingAverage(channels)
    if kind == "percentile":
        return Percentile(channels, symmetric, share)
    if kind == "entropy":
        return Entropy(channels, symmetric, bits)
    return MeanSquaredError(channels, symmetric, bits)


def _around_zero(least: float, most: float, symmetric: bool) -> tuple[float, float]:
    """The range with 0 in it, and the same on both sides where asked."""
    low, high = min(least, 0.0), max(most, 0.0)
    end = max(-low, high)
    return (-end, end) if symmetric else (low, high)


def _quantile(x: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The first of ascending centres up to which a share of the numbers lies."""
    up_to = np.cumsum(counts)
    return float(x[min(np.searchsorted(up_to, share * up_to[-1]), len(x) - 1)])


def _divergence(found: Bins, low: float, high: float, bits: int, symmetric: bool) -> float:
    """KL(before || after): before has what is clipped in its outermost bins; after spreads each level's count
    evenly over the bins that the level stands for and that have any."""
    x, counts = found.centres, found.counts
    inside = (x >= low) & (x <= high)
    if not inside.any():
        return np.inf
    first, last = integers(bits)
    kept = counts[inside].astype(np.float64)
    levels = fit(low, high, first, last, symmetric=symmetric).quantize(x[inside]).astype(np.int64)
    after = np.bincount(levels, kept)[levels] / np.bincount(levels)[levels]
    before = kept.copy()
    before[0] += counts[x < low].sum()
    before[-1] += counts[x > high].sum()
    before, after = before / before.sum(), after / after.sum()
    return float((before * np.log(before / after)).sum())

"""A histogram of numbers that stream past, in memory that does not grow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PER_TENSOR, PER_CHANNEL = 1 << 14, 1 << 11  # bins
_LEAST_EXPONENT = -120  # a range of zeros alone; well inside float32


@dataclass(frozen=True)
class Bins:
    """centres, ascending, and counts of the bins of one channel that have any; width of a bin."""

    centres: np.ndarray
    counts: np.ndarray
    width: float


class Histogram:
    """Counts over (-2^e, 2^e), a range for each channel, that doubles when a number is outside.

    Edges are multiples of a power of two, so that bins merge in pairs without a remainder: the counts are
    the same however the numbers were cut into parts, and in whatever order they came.

    Args:
        channels: each has counts of its own.
        bins: a power of two; by default as many as one channel, or many, can afford.
    """

    def __init__(self, channels: int = 1, bins: int | None = None) -> None:
        self.bins = bins or (PER_TENSOR if channels == 1 else PER_CHANNEL)
        self.counts = np.zeros((channels, self.bins), np.int64)
        self.exponents = np.full(channels, _LEAST_EXPONENT, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count finite numbers, (rows, channels)."""
        if values.shape[0] == 0:
            return
        magnitude = np.maximum(values.max(axis=0), -values.min(axis=0)).astype(np.float64)
        needed = np.frexp(magnitude)[1]  # the smallest e with magnitude < 2^e
        for channel in np.flatnonzero(needed > self.exponents):
            times = int(needed[channel] - self.exponents[channel])
            self.counts[channel] = _merged(self.counts[channel], times)
            self.exponents[channel] = needed[channel]
        for number, exponent in enumerate(self.exponents.tolist()):
            # Whole powers of two: the division is exact, and so is the bin.
            steps = np.ldexp(values[:, number].astype(np.float64), self.bins.bit_length() - 2 - exponent)
            index = np.floor(steps).astype(np.int64) + self.bins // 2
            self.counts[number] += np.bincount(index, minlength=self.bins)

    def occupied(self, channel: int, bins: int | None = None) -> Bins:
        """The bins of a channel that have any.

        Args:
            bins: how many to look at, a power of two; fewer than there are: neighbours are joined.
        """
        bins = min(bins or self.bins, self.bins)
        counts = self.counts[channel].reshape(bins, -1).sum(axis=1)
        found = np.flatnonzero(counts)
        width = float(np.ldexp(2.0 / bins, self.exponents[channel]))
        return Bins((found - bins // 2 + 0.5) * width, counts[found], width)


def _merged(counts: np.ndarray, times: int) -> np.ndarray:
    """Counts over a range doubled so many times."""
    half = len(counts) // 2
    factor = min(1 << min(times, 62), half)
    merged = np.zeros_like(counts)
    inner = half // factor
    merged[half - inner : half] = counts[:half].reshape(inner, factor).sum(axis=1)
    merged[half : half + inner] = counts[half:].reshape(inner, factor).sum(axis=1)
    return merged

"""From interleaved timings to a ratio and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...passes.manager.contract import Ratio

_RESAMPLES = 2000


@dataclass(frozen=True)
class Speedup(Ratio):
    """How many times faster than the first contestant; above 1 is faster.

    median: of the ratios of each round. low, high: their quartiles. interval: 95% of the bootstrapped medians
    (Efron's percentile interval, 1979), which says where the median lies rather than where rounds do.
    """

    interval: tuple[float, float]


def speedup(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Speedup:
    """The speed-up of `after` over `before`: seconds of the same rounds, in order."""
    ratios = np.asarray(before, np.float64) / np.asarray(after, np.float64)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    resampled = np.random.default_rng(seed).choice(ratios, (_RESAMPLES, len(ratios)))
    start, end = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return Speedup(float(median), float(low), float(high), (float(start), float(end)))

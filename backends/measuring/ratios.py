"""From interleaved timings to a ratio and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from ...passes.manager.contract import Ratio

ENOUGH = 3  # rounds that nothing disturbed, for those alone to count
FEWEST = 6  # rounds: the lowest and highest of fewer don't hold a median in 95%


@dataclass(frozen=True)
class Speedup(Ratio):
    """How many times faster than the first contestant; above 1 is faster.

    median: of the ratios of each round. low, high: their quartiles. interval: 95% for the median, free of
    any distribution (Conover, Practical Nonparametric Statistics, 3rd edition, 3.2): the ratio of the k-th
    lowest and highest round, the lowest and highest of all where there are fewer than nine. Of rounds that
    nothing disturbed; where those are fewer than six, which would not be 95%, from the lowest to the highest
    of all. Where they are fewer than three, everything is of all, and low and high are that interval too:
    what is in doubt there is in doubt here.
    """

    interval: tuple[float, float]


def speedup(before: Sequence[float], after: Sequence[float], disturbed: Sequence[bool] = ()) -> Speedup:
    """The speed-up of `after` over `before`: seconds of the same rounds, in order.

    disturbed: the rounds that were, in order; none where it is empty.
    """
    ratios = np.asarray(before, np.float64) / np.asarray(after, np.float64)
    quiet = ratios[~np.asarray(disturbed, bool)] if len(disturbed) else ratios
    if doubtful := len(quiet) < min(ENOUGH, len(ratios)):
        quiet = ratios
    low, median, high = np.quantile(quiet, [0, 0.5, 1] if doubtful else [0.25, 0.5, 0.75])
    # Of so few quiet rounds the others have to widen it.
    interval = _interval(quiet) if len(quiet) >= FEWEST else (float(ratios.min()), float(ratios.max()))
    return Speedup(float(median), float(low), float(high), interval)


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """scipy.stats.quantile_test tells the same and takes a second to import."""
    ordered, count = np.sort(ratios), len(ratios)
    tail = lambda left_out: sum(comb(count, number) for number in range(left_out)) / 2**count
    sure = [left_out for left_out in range(1, count // 2) if 2 * tail(left_out + 1) <= 0.05]
    left_out = sure[-1] if sure else 0
    return float(ordered[left_out]), float(ordered[count - 1 - left_out])

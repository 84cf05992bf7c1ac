"""GOBO's dictionary: a few outliers kept as they are, all other weights one of 2^n numbers.

Zadeh, Edo, Awad and Moshovos, 2020, arXiv:2005.03842. A layer's weights follow a Gaussian; those that it
makes unlikely are outliers (section IV-A). The others are sorted into 2^n bins of equal count, whose means
are the first centroids; then each weight goes to its nearest centroid and each centroid to the mean of its
weights, until the sum of |weight - centroid| stops falling (section IV-B).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm


@dataclass(frozen=True)
class Dictionary:
    """codes: uint8 (rows, columns). centroids: float32 (2^bits,), ascending. outliers: bool (rows, columns).
    values: float32, of the outliers, in the order of rows."""

    codes: np.ndarray
    centroids: np.ndarray
    outliers: np.ndarray
    values: np.ndarray
    bits: int

    def floats(self) -> np.ndarray:
        """The weight that the packed graph computes with."""
        found = self.centroids[self.codes]
        found[self.outliers] = self.values
        return found


def dictionary(weight: np.ndarray, bits: int, threshold: float = -4.0) -> Dictionary:
    """Codes, centroids and outliers of one weight.

    Args:
        weight: float32 (rows, columns), finite.
        threshold: logarithm of the Gaussian's density, in the weights' own unit, below which a weight is an
            outlier (the paper: -4).
    """
    spread = float(weight.std(dtype=np.float64))
    if spread > 0:
        limit = _distance(spread, threshold)
        outliers = np.abs(weight - weight.mean(dtype=np.float64)) > limit
    else:
        outliers = np.zeros(weight.shape, bool)
    centroids = fit(weight[~outliers], bits)
    codes = _nearest(weight, centroids)
    codes[outliers] = 0
    return Dictionary(codes, centroids, outliers, weight[outliers].astype(np.float32), bits)


def fit(values: np.ndarray, bits: int) -> np.ndarray:
    """Centroids, float32 (2^bits,), ascending; equal ones where there are fewer different values."""
    count = 2**bits
    if values.size == 0:
        return np.zeros(count, np.float32)
    ordered = np.sort(values, axis=None).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    edges = np.linspace(0, ordered.size, count + 1).round().astype(np.int64)
    centroids = _means(sums, edges, ordered[np.minimum(edges[:-1], ordered.size - 1)])
    best, least = centroids, np.inf
    while True:
        edges = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2, side="right")
        edges = np.concatenate([[0], edges, [ordered.size]])
        loss = _loss(ordered, sums, edges, centroids)
        if loss >= least:
            return best.astype(np.float32)
        best, least = centroids, loss
        centroids = _means(sums, edges, centroids)


def _distance(spread: float, threshold: float) -> float:
    """From the mean to where a Gaussian's log-density falls to the threshold; 0 where it starts below."""
    peak = norm.logpdf(0, scale=spread)
    return spread * np.sqrt(2 * max(0.0, peak - threshold))


def _means(sums: np.ndarray, edges: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The mean between neighbouring edges; something else where there is nothing between."""
    sizes = np.diff(edges)
    return np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), otherwise)


def _loss(ordered: np.ndarray, sums: np.ndarray, edges: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of |value - centroid|: those below their centroid, and those above."""
    middle = np.clip(np.searchsorted(ordered, centroids), edges[:-1], edges[1:])
    below = (middle - edges[:-1]) * centroids - (sums[middle] - sums[edges[:-1]])
    above = sums[edges[1:]] - sums[middle] - (edges[1:] - middle) * centroids
    return float((below + above).sum())


def _nearest(weight: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    codes = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, weight)
    return codes.astype(np.uint8)

"""k-means with weights, for millions of short vectors: the same centroids for the same seed.

Lloyd's algorithm (1982) from k-means++ seeds (Arthur and Vassilvitskii, 2007). Centroids move over a sample
of the vectors, as in FAISS (Johnson et al., 2017, arXiv:1702.08734), and every vector then takes the nearest.
SciPy's kmeans2 has no weights, and scikit-learn is a large dependency for this one algorithm.
"""

from __future__ import annotations

import numpy as np

SAMPLE = 512  # vectors to a centroid that it moves over
_BLOCK = 1 << 22  # distances held at a time


def kmeans(
    vectors: np.ndarray,
    count: int,
    *,
    weights: np.ndarray | None = None,
    iterations: int = 20,
    sample: int = SAMPLE,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids with a small sum of weight * |vector - nearest centroid|^2.

    Args:
        vectors: (n, d) floats, finite; (n,) counts as (n, 1).
        count: centroids wanted. Where there are fewer different vectors, some centroids are equal.
        weights: (n,), not negative; 1 for each if None or all are 0.
        iterations: at most; they stop when no vector changes its centroid.
        sample: vectors to a centroid, drawn by weight where there are more.
        seed: of the sample and the first centroids.

    Returns:
        Centroids, float32 (count, d), sorted (by the first number, then the second, ...), and the nearest
        one's index for each vector, int32 (n,).
    """
    data = np.ascontiguousarray(vectors.reshape(len(vectors), -1), np.float32)
    rng = np.random.default_rng(seed)
    weight = np.ones(len(data)) if weights is None else np.asarray(weights, np.float64)
    if not weight.any():
        weight = np.ones(len(data))
    some = data
    if len(data) > sample * count:
        # Drawn by weight, each then counts the same: few draws go to what hardly matters.
        chosen = np.sort(rng.choice(len(data), sample * count, p=weight / weight.sum()))
        some, weight = data[chosen], np.ones(len(chosen))
    centroids = _seeds(some, weight, count, rng)
    before: np.ndarray | None = None
    for _ in range(iterations):
        codes = assign(some, centroids)
        if before is not None and np.array_equal(codes, before):
            break
        centroids, before = _moved(some, weight, codes, centroids), codes
    centroids = centroids[np.lexsort(centroids.T[::-1])]
    return centroids, assign(data, centroids)


def assign(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The index of each vector's nearest centroid, the first of equally near ones: int32 (n,)."""
    data = np.ascontiguousarray(vectors.reshape(len(vectors), -1), np.float32)
    codes = np.empty(len(data), np.int32)
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for every c.
    half = (centroids.astype(np.float32) ** 2).sum(axis=1) / 2
    turned = np.ascontiguousarray(centroids.T, np.float32)
    step = max(1, _BLOCK // len(centroids))
    for start in range(0, len(data), step):
        distance = half - data[start : start + step] @ turned
        codes[start : start + step] = distance.argmin(axis=1)
    return codes


def _seeds(data: np.ndarray, weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors drawn one after the other by weight * squared distance to the nearest drawn before."""
    centroids = np.empty((count, data.shape[1]), np.float32)
    draws = rng.random(count)
    nearest = np.full(len(data), np.inf, np.float32)
    for number, draw in enumerate(draws):
        chance = np.cumsum(weight * nearest) if number else np.cumsum(weight)
        if chance[-1] <= 0:  # every vector is a centroid already
            chance = np.cumsum(weight)
        place = min(int(np.searchsorted(chance, draw * chance[-1], side="right")), len(data) - 1)
        centroids[number] = data[place]
        np.minimum(nearest, ((data - data[place]) ** 2).sum(axis=1), out=nearest)
    return centroids


def _moved(data: np.ndarray, weight: np.ndarray, codes: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Each centroid at the weighted mean of its vectors; one without any at a vector far from its own."""
    count, width = centroids.shape
    mass = np.bincount(codes, weight, count)
    sums = [np.bincount(codes, weight * data[:, axis], count) for axis in range(width)]
    moved = centroids.copy()
    full = mass > 0
    moved[full] = (np.stack(sums, axis=1)[full] / mass[full, None]).astype(np.float32)
    empty = np.flatnonzero(~full)
    if len(empty):
        error = weight * ((data - moved[codes]) ** 2).sum(axis=1)
        # The stable sort makes ties go to the first: all-equal vectors leave equal centroids, which is right.
        moved[empty] = np.resize(data[np.argsort(-error, kind="stable")[: len(empty)]], (len(empty), width))
    return moved

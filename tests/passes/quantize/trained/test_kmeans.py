"""k-means against SciPy's from the same start, against exhaustive search, and on its edges."""

import itertools

import numpy as np
import pytest
from graphwright.passes.quantize.trained.kmeans import _moved, assign, kmeans
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2, vq


def error(vectors, centroids, codes, weights=None):
    weights = np.ones(len(vectors)) if weights is None else weights
    return float((weights * ((vectors.astype(np.float64) - centroids[codes]) ** 2).sum(axis=1)).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_every_vector_takes_its_nearest_centroid(count, width, clusters, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, width)).astype(np.float32)
    centroids, codes = kmeans(vectors, clusters, seed=seed)
    assert centroids.shape == (clusters, width)
    assert centroids.dtype == np.float32
    distances = ((vectors[:, None] - centroids[None]).astype(np.float64) ** 2).sum(-1)
    np.testing.assert_allclose(distances[np.arange(count), codes], distances.min(axis=1), atol=1e-5)
    np.testing.assert_array_equal(codes, assign(vectors, centroids))


def test_the_result_is_a_fixed_point_of_scipys_lloyd():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((700, 3)).astype(np.float32)
    centroids, codes = kmeans(vectors, 12, iterations=300)
    theirs, _ = kmeans2(vectors.astype(np.float64), centroids.astype(np.float64), iter=1, minit="matrix")
    np.testing.assert_allclose(theirs, centroids, atol=1e-5)
    np.testing.assert_array_equal(vq(vectors, centroids)[0], codes)


def test_weights_are_copies():
    """A weight of three is the vector three times: the same optimum, found by trying every partition."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((7, 2)).astype(np.float32)
    weights = np.array([1, 5, 1, 2, 0, 9, 1.0])
    best = np.inf
    for labels in itertools.product(range(2), repeat=7):
        labels, total = np.array(labels), 0.0
        for cluster in (0, 1):
            inside = labels == cluster
            if weights[inside].sum():
                mean = np.average(vectors[inside], axis=0, weights=weights[inside])
                total += (weights[inside] * ((vectors[inside] - mean) ** 2).sum(1)).sum()
        best = min(best, total)
    found = [error(vectors, *kmeans(vectors, 2, weights=weights, seed=s), weights) for s in range(8)]
    assert min(found) == pytest.approx(best, rel=1e-5)
    unweighted = [error(vectors, *kmeans(vectors, 2, seed=s), weights) for s in range(8)]
    assert min(unweighted) > best * 1.05


def test_heavy_vectors_are_drawn_into_the_sample():
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((20000, 2)).astype(np.float32)
    weights = np.where(vectors[:, 0] > 1.5, 100.0, 1.0)
    weighted = kmeans(vectors, 16, weights=weights, sample=100)
    plain = kmeans(vectors, 16, sample=100)
    assert error(vectors, *weighted, weights) < 0.5 * error(vectors, *plain, weights)
    assert error(vectors, *plain) < 0.8 * error(vectors, *weighted)


def test_equal_seeds_give_equal_bytes_and_centroids_are_sorted():
    vectors = np.random.default_rng(3).standard_normal((5000, 4)).astype(np.float32)
    first, second, other = (kmeans(vectors, 32, seed=seed, sample=64) for seed in (0, 0, 1))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()
    assert (np.diff(first[0][:, 0]) >= 0).all()


def test_clusters_that_lose_their_vectors_are_put_elsewhere():
    vectors = np.array([[0.0], [1.0], [8.0], [9.0]], np.float32)
    weight = np.array([1.0, 1.0, 1.0, 2.0])
    centroids = np.array([[4.0], [100.0]], np.float32)
    moved = _moved(vectors, weight, np.zeros(4, int), centroids)
    # The mean of all is 27 / 5. What errs most, by weight, is 0: 5.4^2 is more than 2 * 3.6^2.
    np.testing.assert_allclose(moved, [[5.4], [0.0]])


def test_as_many_centroids_as_different_vectors_keep_them_all():
    vectors = np.random.default_rng(4).standard_normal((256, 2)).astype(np.float32)
    repeated = np.concatenate([vectors] * 3)
    centroids, codes = kmeans(repeated, 256)
    assert error(repeated, centroids, codes) < 1e-9


@pytest.mark.parametrize("vectors", [np.zeros((50, 4)), np.ones((1, 3)), np.full((9,), 2.5)])
def test_few_different_vectors_are_kept_exactly(vectors):
    centroids, codes = kmeans(vectors, 8, weights=np.zeros(len(vectors)))
    np.testing.assert_array_equal(centroids[codes].reshape(vectors.shape), vectors)

"""Routing Transformer's attention against its paper, token by token."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds import kind
from graphwright.passes.attend.parts.kmeans import kmeans
from routed import full, heads, holds, mixed, ragged, softmax


def unit(x, mean):
    return (x - mean) / np.linalg.norm(x - mean, axis=1, keepdims=True)


def reference(clusters, coverage, scale):
    def best(near, size):
        return np.argsort(-near, axis=1, kind="stable")[:, :size]

    def attention(q, k, v, centroids, query, key):
        n = len(q)
        near_query, near_key = centroids @ unit(q, query).T, centroids @ unit(k, key).T
        size = -(-n * coverage // clusters)
        queries, keys = best(near_query, size), best(near_key, size)
        out = v.copy()
        for i in range(n):
            took = sorted((c for c in range(clusters) if i in queries[c]), key=lambda c: -near_query[c, i])
            if took:
                scores = np.concatenate([q[i] @ k[keys[c]].T * scale for c in took[:coverage]])
                out[i] = softmax(scores) @ np.concatenate([v[keys[c]] for c in took[:coverage]])
        return out

    return attention


def looking_back(block, scale):
    def attention(q, k, v, centroids, query, key):
        n = len(q)
        of_query, of_key = (unit(q, query) @ centroids.T).argmax(1), (unit(k, key) @ centroids.T).argmax(1)
        items = sorted([(of_key[i], i, 0) for i in range(n)] + [(of_query[i], i, 1) for i in range(n)])
        out = np.zeros(v.shape)
        for at, (bucket, i, is_query) in enumerate(items):
            if is_query:
                before = items[max(0, at - 2 * block) : at]
                seen = sorted({i, *(j for other, j, second in before if other == bucket and not second)})
                out[i] = softmax(q[i] @ k[seen].T * scale) @ v[seen]
        return out

    return attention


@pytest.mark.parametrize("coverage", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_papers_attention(causal, coverage):
    options = {"clusters": 4, "coverage": coverage, "block": 3}
    for given in (
        heads(2, causal=causal),
        heads(26, causal=causal),
        heads(21, causal=causal, keep=ragged(21, (21, 9))),
    ):
        told = looking_back(3, given.scale) if causal else reference(4, coverage, given.scale)
        holds("routing", options, given, told)


def test_as_much_coverage_as_clusters_is_full_attention():
    for length in (1, 2, 15, 16):
        for causal, options in (
            (False, {"clusters": 4, "coverage": 4}),
            (False, {"clusters": 1, "coverage": 1}),
            (True, {"clusters": 1, "coverage": 1, "block": 16}),
        ):
            given = heads(length, causal=causal)
            found = mixed("routing", options, given)
            torch.testing.assert_close(found, full(given).float(), rtol=0, atol=1e-5)


def test_centroids_are_found_where_vectors_lie():
    generator = torch.Generator().manual_seed(0)
    drawn = lambda *shape: torch.randn(*shape, generator=generator)
    corners = torch.nn.functional.normalize(drawn(2, 3, 8), dim=2)
    units = torch.nn.functional.normalize(corners.repeat(1, 50, 1) + drawn(2, 150, 8) / 50, dim=2)
    found = kmeans(units, 3, torch.Generator().manual_seed(2))
    assert (found @ corners.transpose(1, 2)).amax(1).min() > 0.999


def test_more_coverage_than_clusters_is_refused():
    with pytest.raises(ValueError, match="coverage is 5, and no more than the 4 clusters"):
        kind("routing", {"clusters": 4, "coverage": 5})

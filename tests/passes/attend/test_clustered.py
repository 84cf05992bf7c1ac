"""Clustered attention against its paper, query by query."""

import numpy as np
import pytest
import torch
from routed import full, heads, holds, mixed, ragged, softmax


def reference(clusters, top, iterations, scale):
    def attention(q, k, v):
        n = len(q)
        centers = q[np.arange(clusters) * n // clusters].copy()
        for turn in range(iterations + 1):
            of = np.array([np.argmin(((x - centers) ** 2).sum(1)) for x in q])
            if turn < iterations:
                for one in set(of):
                    centers[one] = q[of == one].mean(0)
        out = np.zeros(v.shape)
        for i in range(n):
            weights = softmax(q[of == of[i]].mean(0) @ k.T * scale)
            best = np.argsort(-weights, kind="stable")[:top]
            if top:
                own = softmax(q[i] @ k[best].T * scale)
                weights[best] = weights[best].sum() * own
            out[i] = weights @ v
        return out

    return attention


@pytest.mark.parametrize("top", [0, 3])
@pytest.mark.parametrize("iterations", [0, 3])
def test_it_is_the_papers_attention(top, iterations):
    options = {"clusters": 5, "top": top, "iterations": iterations}
    for given in (heads(2), heads(70, seed=3), heads(21, keep=ragged(21, (21, 9)))):
        holds("clustered", options, given, reference(5, top, iterations, given.scale))


@pytest.mark.parametrize(
    "options", [{"clusters": 16, "top": 0}, {"clusters": 16, "top": 4}, {"clusters": 3, "top": 16}]
)
def test_a_cluster_for_every_query_or_every_key_among_the_best_is_full_attention(options):
    for length in (1, 2, 15, 16):
        given = heads(length)
        torch.testing.assert_close(mixed("clustered", options, given), full(given).float(), rtol=0, atol=1e-5)

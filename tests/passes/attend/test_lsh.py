"""Reformer's attention against its paper, token by token."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds import kind
from routed import full, heads, holds, mixed, ragged, softmax


def reference(block, causal, shared, scale):
    def attention(q, k, v, rotations):
        n, rounds = len(q), len(rotations)
        k = q / np.linalg.norm(q, axis=1, keepdims=True) if shared else k
        center = not shared and not causal
        seen = np.zeros((n, n), bool)
        for one in range(rounds):
            columns = rotations.shape[2]
            used = columns if causal else min(columns, -(-n // block))

            def bucket(x, turned=rotations[one][:, :used]):
                x = x - x.mean(0) if center else x
                both = np.concatenate([x @ turned, -x @ turned], 1)
                return both.argmax(1)

            of_query, of_key = bucket(q), bucket(q if shared else k)
            if causal and not shared:
                seen |= _last(of_query, of_key, 2 * block)
                continue
            at_query = _places(of_query)
            at_key = _places(of_key)
            for i in range(n):
                for j in range(n):
                    if causal:
                        inside = of_query[i] == of_key[j] and 0 <= at_query[i] - at_key[j] <= block
                    else:
                        inside = at_query[i] // block - at_key[j] // block in (0, 1)
                    seen[i, j] |= inside
        out = np.zeros(v.shape)
        for i in range(n):
            seen[i, i] = True
            scores = q[i] @ k.T * (1 if shared else scale)
            if shared:
                scores[i] -= 1e5
            found = np.flatnonzero(seen[i])
            out[i] = softmax(scores[found]) @ v[found]
        return out

    return attention


def _places(buckets):
    order = sorted(range(len(buckets)), key=lambda i: (buckets[i], i))
    return [order.index(i) for i in range(len(buckets))]


def _last(of_query, of_key, window):
    n = len(of_query)
    items = sorted([(of_key[i], i, 0) for i in range(n)] + [(of_query[i], i, 1) for i in range(n)])
    seen = np.zeros((n, n), bool)
    for at, (bucket, i, is_query) in enumerate(items):
        for other, j, query_too in items[max(0, at - window) : at] if is_query else ():
            seen[i, j] |= not query_too and other == bucket
    return seen


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_it_is_the_papers_attention(rounds, causal, shared):
    options = {"block": 4, "rounds": rounds, "shared_qk": shared}
    for given in (
        heads(3, causal=causal),
        heads(26, causal=causal),
        heads(21, causal=causal, keep=ragged(21, (21, 9))),
    ):
        holds("lsh", options, given, reference(4, causal, shared, given.scale))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_one_bucket_and_one_block_are_full_attention(rounds, causal):
    for length in (1, 2, 15, 16):
        given = heads(length, causal=causal)
        found = mixed("lsh", {"block": 16, "rounds": rounds, "buckets": 1}, given)
        torch.testing.assert_close(found, full(given).float(), rtol=0, atol=1e-5)


def test_a_fixed_number_of_buckets_is_one_that_rotations_make():
    for buckets in (-2, 3):
        with pytest.raises(ValueError, match="an even number, or 0 to follow the length"):
            kind("lsh", {"buckets": buckets})

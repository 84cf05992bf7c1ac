"""Sparse Sinkhorn attention against its paper, token by token."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds import kind
from routed import full, heads, holds, mixed, ragged, softmax


def reference(size, iterations, temperature, causal, scale):
    def matrix(q, k, sort, near, starts):
        blocks = len(starts)
        logits = np.full((blocks, blocks), -np.inf)
        for a in range(blocks):
            before = q[: starts[a]] if causal else q[starts[a] : starts[a] + size]
            for b in range(a if causal else blocks):
                logits[a, b] = before.mean(0) @ sort @ k[starts[b] : starts[b] + size].mean(0) * scale
                logits[a, b] += near.item() if b == (a - 1) % blocks else 0
        weights = np.exp(logits / temperature)
        rows = lambda w: w / np.maximum(w.sum(1, keepdims=True), 1e-300)
        for _ in range(iterations):
            weights = rows(weights)
            over = weights.cumsum(0) if causal else weights.sum(0)
            weights = weights / np.where(over > 0, over, 1)
        return rows(weights)

    def attention(q, k, v, sort, near):
        n = len(q)
        starts = range(0, n, size)
        weights = matrix(q, k, sort, near, starts)
        out = np.zeros(v.shape)
        for i in range(n):
            block = i // size
            own = [j for j in range(block * size, min(n, (block + 1) * size)) if not causal or j <= i]
            keys, values, counts = list(k[own]), list(v[own]), [1.0] * len(own)
            for place in range(size):
                real = [(w, s + place) for w, s in zip(weights[block], starts, strict=True) if s + place < n]
                count = sum(w for w, _ in real)
                if count > 0:
                    keys.append(sum(w * k[j] for w, j in real) / count)
                    values.append(sum(w * v[j] for w, j in real) / count)
                    counts.append(count)
            out[i] = softmax(np.array(keys) @ q[i] * scale + np.log(counts)) @ np.array(values)
        return out

    return attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("iterations", [0, 5])
def test_it_is_the_papers_attention(iterations, causal):
    options = {"block": 4, "iterations": iterations, "temperature": 0.5}
    for given in (
        heads(3, causal=causal),
        heads(26, causal=causal),
        heads(21, causal=causal, keep=ragged(21, (21, 9))),
    ):
        holds("sinkhorn", options, given, reference(4, iterations, 0.5, causal, given.scale))


@pytest.mark.parametrize("causal", [False, True])
def test_one_block_is_full_attention(causal):
    for length in (1, 2, 15, 16):
        given = heads(length, causal=causal)
        found = mixed("sinkhorn", {"block": 16}, given)
        torch.testing.assert_close(found, full(given).float(), rtol=0, atol=1e-5)


def test_it_starts_as_its_own_block_and_the_one_before():
    from graphwright.passes.attend.kinds.sinkhorn import Sinkhorn

    given = heads(24)
    tensors = {"sort": torch.eye(8), "near": torch.full((2, 1, 1), 1e3)}
    found = Sinkhorn(block=4).mix(given, tensors)
    place = torch.arange(24)
    away = (place[:, None] // 4 - place // 4) % 6
    scores = (given.q @ given.k.transpose(2, 3) * given.scale).masked_fill(away > 1, -1e30)
    torch.testing.assert_close(found, scores.softmax(-1) @ given.v, rtol=0, atol=1e-5)


def test_a_temperature_is_above_zero():
    with pytest.raises(ValueError, match="temperature is 0, and must be above 0"):
        kind("sinkhorn", {"temperature": 0})

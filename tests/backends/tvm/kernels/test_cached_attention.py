"""Attention of one query over a cache against float64 NumPy."""

import numpy as np
import pytest
from graphwright.backends.target import detect
from graphwright.backends.tvm.kernels.attention_spec import Columns
from graphwright.backends.tvm.kernels.cached_attention import CachedAttention, cached_attention
from graphwright.backends.tvm.kernels.machine import Machine
from kernel_run import call, compiled

MACHINE = Machine.of(detect(), 2)


def rotated(x, cos, sin):
    """(batch, heads, dim), turned by halves."""
    low, high = np.split(x, 2, -1)
    return x * cos[:, None] + np.concatenate([-high, low], -1) * sin[:, None]


@pytest.mark.parametrize(
    ("batch", "heads", "groups", "dim", "past", "wide", "hiding"),
    [
        (1, 9, 3, 64, 128, 64, -np.inf), (2, 4, 2, 20, 5, 10, -np.inf), (3, 3, 1, 24, 1, 24, -3e38),
        (1, 4, 4, 8, 37, 0, -1e30),
    ],
)  # fmt: skip
@pytest.mark.parametrize("hides", [False, True])
def test_one_query_over_a_cache(batch, heads, groups, dim, past, wide, hiding, hides):
    """wide: columns of the cosines."""
    rng, f = np.random.default_rng(dim), np.float32
    width = (heads + 2 * groups) * dim
    rows = rng.standard_normal((batch, width), f)
    keys, values = rng.standard_normal((2, batch, groups, past, dim), f)
    angles = rng.uniform(0, 6, (batch, wide or dim)).astype(f)
    bias = np.where(rng.random((batch, 1, 1, past + 1)) < 0.3, -np.inf, 0.5).astype(f)
    bias[0] = hiding  # a sequence that sees no key
    columns = [Columns(width, at * dim) for at in (0, heads, heads + groups)]
    spec = CachedAttention(
        batch, past, heads, groups, dim, dim, 0.3, *columns, wide, batch, (False, True) if hides else None,
    )  # fmt: skip
    arguments = [rows, rows, rows, *([np.cos(angles), np.sin(angles)] if wide else []), keys, values]
    context, new_keys, new_values = call(
        compiled(cached_attention(spec, MACHINE)), arguments + ([bias] if hides else []),
        [((batch, heads * dim), f), ((batch, groups, past + 1, dim), f), ((batch, groups, past + 1, dim), f)],
    )  # fmt: skip
    exact = rows.astype(np.float64).reshape(batch, -1, dim)
    q, k, v = np.split(exact, [heads, heads + groups], 1)
    if wide:
        both = np.tile(angles, 2)[:, :dim].astype(np.float64)
        q, k = (rotated(x, np.cos(both), np.sin(both)) for x in (q, k))
    k, v = (np.concatenate([old, new[:, :, None]], 2) for old, new in ((keys, k), (values, v)))
    np.testing.assert_allclose(new_keys, k, atol=2e-6)
    np.testing.assert_array_equal(new_values, v.astype(f))
    k, v = (np.repeat(x, heads // groups, 1) for x in (k, v))
    scores = np.einsum("bhd,bhkd->bhk", q, k) * 0.3 + (bias[:, :, 0] if hides else 0)
    if hides:
        scores[0] = 0  # all keys alike, where nothing is better
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhk,bhkd->bhd", weights / weights.sum(-1, keepdims=True), v)
    if hides and hiding == -np.inf:
        expected[0] = 0
    np.testing.assert_allclose(context, expected.reshape(batch, -1), atol=5e-6)

"""The kernel library against float64 NumPy, at sizes that no tile divides."""

from itertools import pairwise

import numpy as np
import pytest
from graphwright.backends.target import detect
from graphwright.backends.tvm.kernels.attention import attention
from graphwright.backends.tvm.kernels.attention_spec import Attention, Columns
from graphwright.backends.tvm.kernels.dense import Dense, dense
from graphwright.backends.tvm.kernels.dot import dot, halved, panels
from graphwright.backends.tvm.kernels.embedding import Embedding, embedding
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.norm import finished
from graphwright.backends.tvm.kernels.pack import pack, unpack
from graphwright.backends.tvm.kernels.pool import pool
from graphwright.backends.tvm.kernels.rotate import Rotate, rotate
from graphwright.backends.tvm.kernels.rows import Finish, Norm
from graphwright.backends.tvm.kernels.sparse_attention import sparse_attention
from graphwright.backends.tvm.kernels.tile import Tile, candidates
from graphwright.backends.tvm.kernels.visible import Visible, packed_bits, visible
from graphwright.backends.tvm.kernels.window_attention import window_attention
from kernel_run import call, compiled, wide
from scipy.special import erf

MACHINE = Machine.of(detect(), 2)
LAYER = Norm("layer", 1e-5)


def normalised(y, gamma, beta, epsilon=1e-5):
    centred = y - y.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon) * gamma + beta


@pytest.mark.parametrize("m", [1, 5, 33])
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_float_dense_with_gelu_and_residual(m, split):
    rng, k, n = np.random.default_rng(m), 37, 67
    spec = Dense(k, n, activation="gelu", finish=Finish(residual=True), split=split)
    tile = candidates(n, MACHINE)[0]
    x, residual = (rng.standard_normal(s, np.float32) for s in ((m, k), (m, n)))
    w, bias = rng.standard_normal((k, n), np.float32), rng.standard_normal(n, np.float32)
    size = -(-n // tile.columns) * tile.columns
    (y,) = call(
        compiled(dense(spec, MACHINE, tile)), [x, panels(w, tile.columns), wide(bias, size), residual],
        [((m, n), np.float32)],
    )  # fmt: skip
    z = x.astype(np.float64) @ w + bias
    np.testing.assert_allclose(y, z * (1 + erf(z / np.sqrt(2))) / 2 + residual, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 2])
def test_gated_dense(columns):
    rng, m, k, n = np.random.default_rng(0), 19, 24, 45
    tile = Tile(4, 2 * columns * MACHINE.lanes)
    x = rng.standard_normal((m, k), np.float32)
    up, gate = rng.standard_normal((2, k, n), np.float32) / 5
    weight = panels(halved(up, gate, tile.columns), tile.columns)
    kernel = compiled(dense(Dense(k, n, bias=False, activation="silu", gated=True), MACHINE, tile))
    (y,) = call(kernel, [x, weight], [((m, n), np.float32)])
    z = x.astype(np.float64) @ gate
    np.testing.assert_allclose(y, x @ up.astype(np.float64) * z / (1 + np.exp(-z)), atol=1e-5)


@pytest.mark.parametrize("rounds", ["no", "dynamic"])
@pytest.mark.parametrize("m", [9, 13, 18])
def test_rows_in_two_threads_tiles_are_finished_by_one(m, rounds):
    """The last tile lies over rows of the one before, which is the other thread's: of 200 calls, some twenty
    met a row half normalised there."""
    rng, k, n = np.random.default_rng(m), 96, 384
    tile = candidates(n, MACHINE)[0]
    spec = Dense(k, n, bias=False, finish=Finish(residual=True, norm=LAYER, rounds=rounds))
    x, residual, w = (rng.standard_normal(s, np.float32) for s in ((m, k), (m, n), (k, n)))
    gamma, beta = rng.standard_normal((2, n), np.float32)
    kernel = compiled(dense(spec, MACHINE, tile))
    results = [((m, n), np.float32)]
    if rounds == "dynamic":
        results += [((m, n), dot(MACHINE).dtype), (m, np.float32), (m, np.int32)]
    exact = normalised(x.astype(np.float64) @ w + residual, gamma, beta)
    for _ in range(200):
        y, *_ = call(kernel, [x, panels(w, tile.columns), residual, gamma, beta], results)
        np.testing.assert_allclose(y, exact, atol=3e-5)


@pytest.mark.parametrize(("m", "k"), [(1, 64), (7, 39), (40, 37)])
def test_integer_dense_by_rows_with_norm_and_rounding(m, k):
    rng, n, product = np.random.default_rng(m), 72, dot(MACHINE)
    spec = Dense(k, n, "dynamic", finish=Finish(residual=True, stream=True, norm=LAYER, rounds="dynamic"))
    tile = candidates(n, MACHINE)[0]
    size = -(-n // tile.columns) * tile.columns
    q = rng.integers(0, 256, (m, k)).astype(np.uint8)
    scale, zero = rng.random(m, np.float32) + 0.5, rng.integers(90, 160, m).astype(np.int32)
    w = rng.integers(-127, 128, (k, n)).astype(np.int8)
    w_scale, bias = rng.random(n, np.float32) / 1e4, rng.standard_normal(n, np.float32)
    residual, gamma, beta = (rng.standard_normal(s, np.float32) for s in ((m, n), n, n))
    stored = (q.astype(np.int64) - product.bias).astype(product.dtype)
    vectors = [w_scale, w.astype(np.int32).sum(0, dtype=np.int32), bias]
    arguments = [stored, scale, zero, panels(w, tile.columns, product.step)]
    arguments += [*(wide(v, size) for v in vectors), residual, wide(gamma, size), wide(beta, size)]
    total, y, rounded, steps, zeros = call(
        compiled(dense(spec, MACHINE, tile)), arguments,
        [((m, n), np.float32)] * 2 + [((m, n), product.dtype), (m, np.float32), (m, np.int32)],
    )  # fmt: skip
    sums = (q.astype(np.int64) - zero[:, None]) @ w.astype(np.int64)
    expected = sums * w_scale.astype(np.float64) * scale[:, None] + bias + residual
    np.testing.assert_allclose(total, expected, atol=1e-5, rtol=1e-6)
    expected = normalised(expected, gamma, beta)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    back = (rounded.astype(np.float64) + product.bias - zeros[:, None]) * steps[:, None]
    assert (np.abs(back - expected) <= 0.51 * steps[:, None]).all()


def test_static_rounding_saturates():
    rng, m, k, n, product = np.random.default_rng(0), 9, 16, 20, dot(MACHINE)
    spec = Dense(k, n, "static", bias=False, finish=Finish(floats=False, rounds="static"))
    tile = candidates(n, MACHINE)[0]
    size = -(-n // tile.columns) * tile.columns
    q, w = rng.integers(0, 256, (m, k)).astype(np.uint8), rng.integers(-127, 128, (k, n)).astype(np.int8)
    stored = (q.astype(np.int64) - product.bias).astype(product.dtype)
    start = ((product.bias - 100) * w.astype(np.int32).sum(0, dtype=np.int32)).astype(np.int32)
    fixed = np.array([1 / 0.5, 30], np.float32)
    weight = panels(w, tile.columns, product.step)
    scale = wide(np.full(n, 1e-2, np.float32), size)
    (y,) = call(
        compiled(dense(spec, MACHINE, tile)), [stored, weight, scale, wide(start, size), fixed],
        [((m, n), product.dtype)],
    )  # fmt: skip
    exact = np.rint((q.astype(np.int64) - 100) @ w.astype(np.int64) * 1e-2 / 0.5) + 30
    found = y.astype(np.int64) + product.bias
    assert found.min() == 0
    assert found.max() == 255
    assert np.abs(found - np.clip(exact, 0, 255)).max() <= 1  # a half may round either way


def reference_attention(q, k, v, heads, scale, bias, causal, cap=0):
    """One sequence in float64; queries without keys give zeros."""
    split = lambda x, count: x.reshape(len(x), count, -1).transpose(1, 0, 2).astype(np.float64)
    q, k, v = split(q, heads[0]), split(k, heads[1]), split(v, heads[1])
    k, v = (x.repeat(heads[0] // heads[1], 0) for x in (k, v))
    scores = q @ k.transpose(0, 2, 1) * scale
    scores = (cap * np.tanh(scores / cap) if cap else scores) + bias
    if causal:
        seen = np.tril(np.ones(scores.shape[1:], bool), scores.shape[2] - scores.shape[1])
        scores = np.where(seen, scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    context = weights / np.where(total == 0, 1, total) @ v
    return context.transpose(1, 0, 2).reshape(context.shape[1], -1)


@pytest.mark.parametrize(
    ("lengths", "heads", "dim", "causal", "cap"),
    [
        ([50, 3, 1, 17], (4, 4), 32, False, 0), ([50, 7], (6, 2), 20, True, 0), ([16], (3, 3), 8, True, 0),
        ([50, 7], (6, 2), 20, True, 2.0),
    ],
)  # fmt: skip
def test_attention_of_packed_sequences(lengths, heads, dim, causal, cap):
    rng, width = np.random.default_rng(0), (heads[0] + 2 * heads[1]) * dim
    at = (0, heads[0] * dim, (heads[0] + heads[1]) * dim)
    columns = [Columns(width, start) for start in at]
    spec = Attention(*heads, dim, dim, dim**-0.5, max(lengths), *columns, causal, softcap=cap)
    x = 2 * rng.standard_normal((sum(lengths), width), np.float32)
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    shape = (len(x), heads[0] * dim)
    (y,) = call(compiled(attention(spec, MACHINE)), [x, x, x, starts, starts], [(shape, np.float32)])
    q, k, v = x[:, : at[1]], x[:, at[1] : at[2]], x[:, at[2] :]
    for first, last in pairwise(starts):
        part = slice(first, last)
        expected = reference_attention(q[part], k[part], v[part], heads, dim**-0.5, 0.0, causal, cap)
        np.testing.assert_allclose(y[part], expected, atol=2e-5)


@pytest.mark.parametrize("window", [(4, 4), (20, 0), (0, 30), (3, 1)])
def test_attention_within_a_window_of_places_that_others_were_left_out_of(window):
    rng, heads, dim, lengths = np.random.default_rng(0), (4, 2), 16, (70, 3, 33)
    columns = [Columns(64), Columns(32), Columns(32)]
    spec = Attention(*heads, dim, dim, 0.25, 96, *columns)
    places = np.concatenate(
        [np.sort(rng.choice(96, n, replace=False)) + 96 * i for i, n in enumerate(lengths)]
    )
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    q, k, v = (rng.standard_normal((starts[-1], c.width), np.float32) for c in columns)
    arguments = [q, k, v, starts, starts, places.astype(np.int32)]
    kernel = compiled(window_attention(spec, window, MACHINE))
    (y,) = call(kernel, arguments, [(q.shape, np.float32)])
    for first, last in pairwise(starts):
        part = slice(first, last)
        far = places[None, part] - places[part, None]
        bias = np.where((far >= -window[0]) & (far <= window[1]), 0.0, -np.inf)
        expected = reference_attention(q[part], k[part], v[part], heads, 0.25, bias, False)
        np.testing.assert_allclose(y[part], expected, atol=2e-5)


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_attention_to_some_keys_of_places_that_others_were_left_out_of(share):
    rng, heads, dim, lengths, length = np.random.default_rng(0), (4, 2), 20, (150, 3, 101, 33), 150
    columns = [Columns(80), Columns(40), Columns(40)]
    spec = Attention(*heads, dim, dim, 0.25, length, *columns)
    sees = np.kron(rng.random((15, 15)) < share, np.ones((10, 10))) + np.eye(length) > 0
    left = [np.sort(rng.choice(length, n, replace=False)) for n in lengths]
    left[2] = np.arange(7, 108)  # on both sides only
    places = np.concatenate([each + length * i for i, each in enumerate(left)]).astype(np.int32)
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    q, k, v = (rng.standard_normal((starts[-1], c.width), np.float32) for c in columns)
    which = Visible(length)
    (words,) = call(
        compiled(visible(which, MACHINE)), [packed_bits(sees, MACHINE), places, starts],
        [((starts[-1], which.words(MACHINE)), np.int32)],
    )  # fmt: skip
    kernel = compiled(sparse_attention(spec, MACHINE))
    (y,) = call(kernel, [q, k, v, starts, starts, words], [(q.shape, np.float32)])
    for first, last in pairwise(starts):
        part = slice(first, last)
        bias = np.where(sees[np.ix_(places[part] % length, places[part] % length)], 0.0, -np.inf)
        expected = reference_attention(q[part], k[part], v[part], heads, 0.25, bias, False)
        np.testing.assert_allclose(y[part], expected, atol=2e-5)


@pytest.mark.parametrize("hiding", [-1e30, np.finfo(np.float32).min, -np.inf])
def test_attention_with_a_mask_that_hides_everything_from_a_query(hiding):
    rng, heads, dim, count = np.random.default_rng(0), (2, 2), 12, 11
    columns = [Columns(24)] * 3
    spec = Attention(*heads, dim, dim, 0.3, count, *columns, False, (False, True))
    q, k, v = rng.standard_normal((3, 3 * count, 24), np.float32)
    bias = rng.standard_normal((3, 1, count, count), np.float32)
    bias[1, 0, :, 6:] = -np.inf
    bias[2, 0, 4] = hiding
    starts = (np.arange(4) * count).astype(np.int32)
    (y,) = call(compiled(attention(spec, MACHINE)), [q, k, v, starts, starts, bias], [(q.shape, np.float32)])
    for number in range(3):
        part = slice(number * count, (number + 1) * count)
        expected = reference_attention(q[part], k[part], v[part], heads, 0.3, bias[number], False)
        if number == 2:
            expected[4] = 0 if hiding == -np.inf else v[part].mean(0)
        np.testing.assert_allclose(y[part], expected, atol=1e-5)


def test_norm_of_a_sum_that_is_wanted_too():
    rng, shape = np.random.default_rng(0), (7, 50)
    x, residual = rng.standard_normal((2, *shape), np.float32)
    gamma = rng.standard_normal(50, np.float32)
    finish = Finish(True, True, Norm("rms", 1e-6, True, False))
    kernel = compiled(finished(50, finish, MACHINE))
    total, y = call(kernel, [x, residual, gamma], [(shape, np.float32)] * 2)
    exact = x.astype(np.float64) + residual
    np.testing.assert_allclose(total, exact, atol=1e-6)
    np.testing.assert_allclose(
        y, exact / np.sqrt((exact**2).mean(1, keepdims=True) + 1e-6) * gamma, atol=2e-6
    )


def test_embedding_of_kept_tokens():
    rng, n = np.random.default_rng(0), 50
    ids, rows = rng.integers(0, 20, 14), np.array([0, 1, 2, 7, 8, 13], np.int32)
    table, places = rng.standard_normal((20, n), np.float32), rng.standard_normal((7, n), np.float32)
    gamma, beta = rng.standard_normal((2, n), np.float32)
    kernel = compiled(embedding(Embedding((20,), 7, n, Finish(norm=LAYER)), MACHINE))
    (y,) = call(kernel, [rows, ids, table, places, gamma, beta], [((6, n), np.float32)])
    exact = table[ids[rows]].astype(np.float64) + places[rows % 7]
    np.testing.assert_allclose(y, normalised(exact, gamma, beta), atol=2e-6)


@pytest.mark.parametrize("rows", [[0, 1, 2, 5, 6], [3], list(range(9))])
def test_packing_and_unpacking(rows):
    x = np.random.default_rng(0).standard_normal((9, 21), np.float32)
    kept = np.array(rows, np.int32)
    (packed,) = call(compiled(pack(21, MACHINE)), [kept, x], [((len(rows), 21), np.float32)])
    np.testing.assert_array_equal(packed, x[rows])
    (back,) = call(compiled(unpack(21, MACHINE)), [kept, packed], [((3, 3, 21), np.float32)])
    expected = np.zeros_like(x)
    expected[rows] = x[rows]
    np.testing.assert_array_equal(back, expected.reshape(3, 3, 21))


@pytest.mark.parametrize("n", [7, 64, 96, 134])
def test_pooling_adds_the_rows_of_each_sequence(n):
    x, starts = np.random.default_rng(n).standard_normal((14, n), np.float32), [0, 3, 3, 4, 14]
    (sums,) = call(compiled(pool(n, MACHINE)), [np.array(starts, np.int32), x], [((4, n), np.float32)])
    exact = np.stack([x[a:b].astype(np.float64).sum(0) for a, b in pairwise(starts)])
    np.testing.assert_allclose(sums, exact, atol=2e-6)


@pytest.mark.parametrize(("dim", "angles"), [(8, 8), (64, 32), (12, 12)])
def test_heads_are_rotated_to_the_places_of_their_tokens(dim, angles):
    rng, rows = np.random.default_rng(dim), np.array([0, 1, 4, 5, 9], np.int32)
    x, (cosines, sines) = rng.standard_normal((5, 3 * dim + 5)), rng.standard_normal((2, 7, angles))
    given = [array.astype(np.float32) for array in (x, cosines, sines)]
    spec = Rotate(2, dim, Columns(3 * dim + 5, dim), angles)
    (turned,) = call(compiled(rotate(spec, MACHINE)), [rows, *given], [((5, 2 * dim), np.float32)])
    x, cosines, sines = (array.astype(np.float64) for array in given)
    cosines, sines = (np.tile(table, 2)[rows % 7, None, :dim] for table in (cosines, sines))
    heads = x[:, dim : 3 * dim].reshape(5, 2, dim)
    swapped = np.concatenate([-heads[..., dim // 2 :], heads[..., : dim // 2]], -1)
    np.testing.assert_allclose(turned, (heads * cosines + swapped * sines).reshape(5, -1), atol=2e-6)

"""Attention in bfloat16 against float64 NumPy over rounded queries, keys, probabilities and values."""

from dataclasses import replace
from itertools import pairwise

import amx
import ml_dtypes
import numpy as np
import pytest
import tvm
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.kernels.amx import TILES
from graphwright.backends.tvm.kernels.attention import attention
from graphwright.backends.tvm.kernels.attention_spec import Attention, Columns
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.sparse_attention import sparse_attention
from graphwright.backends.tvm.kernels.visible import Visible, packed_bits, visible
from graphwright.backends.tvm.kernels.window_attention import window_attention
from graphwright.backends.tvm.machine import bfloat16
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from kernel_run import call, compiled

TARGET = detect()
HERE = Machine.of(TARGET, 2)
WIDEN = replace(HERE, bfloat16="widen", tiles="no")
# As on a processor with AMX: a block of keys is one and a half tiles of pairs.
TILED = replace(WIDEN, lanes=16, registers=32, tiles="amx" if TARGET.arch == "x86_64" else "plain")
SPELLINGS = [pytest.param(WIDEN, id="widen"), pytest.param(TILED, id=f"{TILED.tiles} tiles")]
if HERE.bfloat16 != "widen":
    SPELLINGS.append(pytest.param(replace(HERE, tiles="no"), id=HERE.bfloat16))


@pytest.fixture(autouse=True, scope="module")
def instructions():
    with amx.emulated() as library:
        yield library


def built(function, machine):
    """For this processor; with AMX for one of Intel's, as LLVM gives AMD's tiles other numbers (findings)."""
    if machine.tiles != "amx":
        return compiled(function)
    processor = "skylake-avx512" if "avx512f" in TARGET.isa else "haswell"
    target = {"kind": "llvm", "mcpu": processor, "mattr": ["+amx-tile", "+amx-int8", "+amx-bf16"]}
    module = tvm.IRModule({"main": function})
    return bfloat16.compiled(module, target=tvm.target.Target(target))["main"]


def brain(array):
    return array.astype(ml_dtypes.bfloat16).astype(np.float64)


def reference(spec, q, k, v, bias=0.0, rounded=brain):
    """One sequence; queries without keys give zeros."""
    split = lambda x, count: x.reshape(len(x), count, -1).transpose(1, 0, 2)
    q, k, v = split(q, spec.heads), split(k, spec.kv_heads), split(v, spec.kv_heads)
    q, k = (x * np.float32(before) for x, before in zip((q, k), spec.bfloat16, strict=True))
    q, k, v = (rounded(x) for x in (q, k, v))
    k, v = (x.repeat(spec.heads // spec.kv_heads, 0) for x in (k, v))
    scores = q @ k.transpose(0, 2, 1) * spec.scale
    scores = (spec.softcap * np.tanh(scores / spec.softcap) if spec.softcap else scores) + bias
    if spec.causal:
        seen = np.tril(np.ones(scores.shape[1:], bool), scores.shape[2] - scores.shape[1])
        scores = np.where(seen, scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    context = rounded((weights / np.where(total == 0, 1, total)).astype(np.float32)) @ v
    return context.transpose(1, 0, 2).reshape(context.shape[1], -1)


def check(y, spec, q, k, v, bias=0.0):
    """Close to what rounding makes of it, not to what it was; a number near a tie may round either way."""
    expected = reference(spec, q, k, v, bias)
    moved = expected - reference(spec, q, k, v, bias, lambda x: x.astype(np.float64))
    assert np.sqrt(((y - expected) ** 2).mean()) <= 0.1 * np.sqrt((moved**2).mean())
    assert np.abs(y - expected).max() <= 2**-8 * np.abs(v).max()


def starts_of(lengths):
    return np.cumsum([0, *lengths]).astype(np.int32)


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize(
    ("lengths", "heads", "dims", "causal", "cap"),
    [
        ([50, 3, 1, 17], (4, 4), (32, 32), False, 0), ([50, 7], (6, 2), (7, 9), True, 2.0),
        ([33, 64], (2, 2), (80, 72), False, 0),
    ],
)  # fmt: skip
def test_packed_sequences(machine, lengths, heads, dims, causal, cap):
    rng, dim, value_dim = np.random.default_rng(0), *dims
    at = (0, heads[0] * dim, (heads[0] + heads[1]) * dim)
    columns = [Columns(at[2] + heads[1] * value_dim, start) for start in at]
    spec = Attention(
        *heads, dim, value_dim, dim**-0.5, max(lengths), *columns, causal, softcap=cap, bfloat16=(0.3, 0.7)
    )
    x, starts = 2 * rng.standard_normal((sum(lengths), columns[0].width), np.float32), starts_of(lengths)
    shape = (len(x), heads[0] * value_dim)
    (y,) = call(built(attention(spec, machine), machine), [x, x, x, starts, starts], [(shape, np.float32)])
    for first, last in pairwise(starts):
        part = x[first:last]
        check(y[first:last], spec, part[:, : at[1]], part[:, at[1] : at[2]], part[:, at[2] :])


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize("window", [(5, 4), (0, 30)])
def test_a_window(machine, window):
    rng, heads, lengths = np.random.default_rng(0), (4, 2), (70, 3, 33)
    columns = [Columns(64), Columns(32), Columns(32)]
    spec = Attention(*heads, 16, 16, 0.25, 96, *columns, bfloat16=(1.0, 1.0))
    places = np.concatenate(
        [np.sort(rng.choice(96, n, replace=False)) + 96 * i for i, n in enumerate(lengths)]
    )
    starts = starts_of(lengths)
    q, k, v = (rng.standard_normal((starts[-1], c.width), np.float32) for c in columns)
    kernel = built(window_attention(spec, window, machine), machine)
    (y,) = call(kernel, [q, k, v, starts, starts, places.astype(np.int32)], [(q.shape, np.float32)])
    for first, last in pairwise(starts):
        part = slice(first, last)
        far = places[None, part] - places[part, None]
        bias = np.where((far >= -window[0]) & (far <= window[1]), 0.0, -np.inf)
        check(y[part], spec, q[part], k[part], v[part], bias)


@pytest.mark.parametrize("machine", SPELLINGS)
def test_some_blocks_of_keys(machine):
    rng, heads, lengths, length = np.random.default_rng(0), (4, 2), (150, 3, 101), 150
    columns = [Columns(80), Columns(40), Columns(40)]
    spec = Attention(*heads, 20, 20, 0.25, length, *columns, bfloat16=(1.0, 1.0))
    sees = np.kron(rng.random((15, 15)) < 0.1, np.ones((10, 10))) + np.eye(length) > 0
    left = [np.sort(rng.choice(length, n, replace=False)) for n in lengths]
    places = np.concatenate([each + length * i for i, each in enumerate(left)]).astype(np.int32)
    starts, which = starts_of(lengths), Visible(length)
    q, k, v = (rng.standard_normal((starts[-1], c.width), np.float32) for c in columns)
    (words,) = call(
        compiled(visible(which, machine)), [packed_bits(sees, machine), places, starts],
        [((starts[-1], which.words(machine)), np.int32)],
    )  # fmt: skip
    kernel = built(sparse_attention(spec, machine), machine)
    (y,) = call(kernel, [q, k, v, starts, starts, words], [(q.shape, np.float32)])
    for first, last in pairwise(starts):
        part = slice(first, last)
        bias = np.where(sees[np.ix_(places[part] % length, places[part] % length)], 0.0, -np.inf)
        check(y[part], spec, q[part], k[part], v[part], bias)


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize("hiding", [-1e30, -np.inf])
def test_a_mask_that_hides_everything_from_a_query(machine, hiding):
    rng, count = np.random.default_rng(0), 11
    columns = [Columns(24)] * 3
    spec = Attention(2, 2, 12, 12, 0.3, count, *columns, False, (False, True), bfloat16=(1.0, 1.0))
    q, k, v = rng.standard_normal((3, 2 * count, 24), np.float32)
    bias = rng.standard_normal((2, 1, count, count), np.float32)
    bias[0, 0, :, 6:] = -np.inf
    bias[1, 0, 4] = hiding
    starts = (np.arange(3) * count).astype(np.int32)
    (y,) = call(
        built(attention(spec, machine), machine), [q, k, v, starts, starts, bias], [(q.shape, np.float32)]
    )
    check(y[:count], spec, q[:count], k[:count], v[:count], bias[0])
    found = y[count + 4]
    expected = np.zeros(24) if hiding == -np.inf else v[count:].mean(0)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize(("name", "word"), [("x86-64-bf16", "vdpbf16ps"), ("x86-64-amx", "tdpbf16ps")])
def test_a_named_target_has_the_instruction(name, word):
    machine, columns = Machine.of(named(name), 2), [Columns(64)] * 3
    function = attention(Attention(2, 2, 32, 32, 1.0, 96, *columns, bfloat16=(1.0, 1.0)), machine)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    text = bfloat16.compiled(module, target=llvm_target(named(name), 2)).mod.inspect_source("asm")
    assert text.count(f"\t{word}\t") >= 4  # of queries and keys, of probabilities and values
    assert (TILES in function.attrs) == (word == "tdpbf16ps")


@pytest.mark.skipif(TILED.tiles != "amx", reason="AMX extends x86")
def test_every_thread_gives_its_tiles_back(instructions):
    columns, starts = [Columns(64)] * 3, starts_of([20, 9])
    spec = Attention(2, 2, 32, 32, 1.0, 20, *columns, bfloat16=(1.0, 1.0))
    kernel = built(attention(spec, TILED), TILED)
    done, released = instructions.amx_done(), instructions.amx_released()
    x = np.ones((29, 64), np.float32)
    call(kernel, [x, x, x, starts, starts], [(x.shape, np.float32)])
    if "amx_tile" not in TARGET.isa:
        assert instructions.amx_done() > done
        assert instructions.amx_released() == released + TILED.threads
        assert not instructions.amx_held()

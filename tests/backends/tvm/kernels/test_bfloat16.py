"""Products in bfloat16 against float64 NumPy over rounded rows and weights, in both spellings."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import tvm
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.kernels.dense import Dense, dense
from graphwright.backends.tvm.kernels.dot import halved, panels
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.norm import finished
from graphwright.backends.tvm.kernels.rows import Finish, Norm
from graphwright.backends.tvm.kernels.tile import Tile, candidates
from graphwright.backends.tvm.machine import bfloat16
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from kernel_run import call, compiled, wide
from scipy.special import erf

HERE = Machine.of(detect(), 2)
SPELLINGS = [pytest.param(replace(HERE, bfloat16="widen"), id="widen")]
if HERE.bfloat16 != "widen":
    SPELLINGS.append(pytest.param(HERE, id=HERE.bfloat16))


def brain(array):
    """(bits, numbers) of an array rounded to bfloat16."""
    with np.errstate(invalid="ignore"):  # NaN
        rounded = array.astype(ml_dtypes.bfloat16)
    return rounded.view(np.uint16), rounded.astype(np.float64)


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 37, 67), (5, 2, 16), (33, 96, 100), (18, 1, 5)])
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_ragged_products_with_gelu_and_residual(machine, m, k, n, split):
    rng = np.random.default_rng(m)
    spec = Dense(k, n, "bfloat16", activation="gelu", finish=Finish(residual=True), split=split)
    tile = candidates(n, machine)[0]
    (x, exact), (w, weight) = (brain(rng.standard_normal(s, np.float32)) for s in ((m, k), (k, n)))
    residual, bias = rng.standard_normal((m, n), np.float32), rng.standard_normal(n, np.float32)
    size = -(-n // tile.columns) * tile.columns
    (y,) = call(
        compiled(dense(spec, machine, tile)), [x, panels(w, tile.columns, 2), wide(bias, size), residual],
        [((m, n), np.float32)],
    )  # fmt: skip
    z = exact @ weight + bias
    np.testing.assert_allclose(y, z * (1 + erf(z / np.sqrt(2))) / 2 + residual, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("machine", SPELLINGS)
def test_gated_product_whose_rows_are_rounded_for_the_next(machine):
    rng, m, k, n = np.random.default_rng(0), 19, 23, 45
    tile = Tile(4, 4 * machine.lanes)
    x, exact = brain(rng.standard_normal((m, k), np.float32))
    (up, up_exact), (gate, gate_exact) = (brain(rng.standard_normal((k, n), np.float32) / 5) for _ in "ab")
    weight = panels(halved(up, gate, tile.columns), tile.columns, 2)
    finish = Finish(rounds="bfloat16")
    spec = Dense(k, n, "bfloat16", bias=False, activation="silu", gated=True, finish=finish)
    y, stored = call(
        compiled(dense(spec, machine, tile)), [x, weight], [((m, n), np.float32), ((m, n), np.uint16)]
    )
    z = exact @ gate_exact
    np.testing.assert_allclose(y, exact @ up_exact * z / (1 + np.exp(-z)), atol=1e-5)
    np.testing.assert_array_equal(stored, brain(y)[0])


TILED = pytest.param(replace(HERE, bfloat16="widen", tiles="plain"), id="tiles")


@pytest.mark.parametrize("machine", [*SPELLINGS, TILED])
@pytest.mark.parametrize("m", [1, 7, 40])
def test_norm_of_a_sum_rounded_for_the_next(machine, m):
    rng, k, n = np.random.default_rng(m), 64, 72
    norm = Norm("layer", 1e-5)
    finish = Finish(residual=True, stream=True, norm=norm, floats=False, rounds="bfloat16")
    spec = Dense(k, n, "bfloat16", finish=finish)
    tile = Tile(32, 32, amx=True) if machine.tiles == "plain" else candidates(n, machine)[0]
    size = -(-n // tile.columns) * tile.columns
    (x, exact), (w, weight) = (brain(rng.standard_normal(s, np.float32)) for s in ((m, k), (k, n)))
    bias, gamma, beta = rng.standard_normal((3, n), np.float32)
    residual = rng.standard_normal((m, n), np.float32)
    arguments = [
        x,
        panels(w, tile.columns, 2),
        wide(bias, size),
        residual,
        wide(gamma, size),
        wide(beta, size),
    ]
    total, stored = call(
        compiled(dense(spec, machine, tile)), arguments, [((m, n), np.float32), ((m, n), np.uint16)]
    )
    expected = exact @ weight + bias + residual
    np.testing.assert_allclose(total, expected, atol=3e-5)
    centred = expected - expected.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * gamma + beta
    found = stored.view(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=3e-5, rtol=2**-8)  # half a step is 2^-9


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize("n", [16, 45])
def test_rounding_is_to_the_nearest_and_to_even(machine, n):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((7, n)) * 10.0 ** rng.integers(-30, 30, (7, n))).astype(np.float32)
    x[0, :7] = np.inf, -np.inf, np.nan, 0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8  # two ties
    x[1, 0] = np.array(0x7F800001, np.uint32).view(np.float32)  # a NaN whose upper half is infinity
    kernel = compiled(finished(n, Finish(floats=False, rounds="bfloat16"), machine))
    (y,) = call(kernel, [x], [(x.shape, np.uint16)])
    nan = np.isnan(x)
    np.testing.assert_array_equal(y[~nan], brain(x)[0][~nan])
    assert np.isnan(y[nan].view(ml_dtypes.bfloat16).astype(np.float32)).all()


def test_the_spelling_of_this_processor_and_the_portable_one_give_the_same_bits():
    rng, m, k, n = np.random.default_rng(0), 40, 101, 96
    (x, _), (w, _) = (brain(rng.standard_normal(s, np.float32)) for s in ((m, k), (k, n)))
    tile = candidates(n, HERE)[0]
    found = [
        call(compiled(dense(Dense(k, n, "bfloat16", bias=False), machine, tile)),
             [x, panels(w, tile.columns, 2)], [((m, n), np.float32)])[0]
        for machine in (HERE, replace(HERE, bfloat16="widen"))
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("name", "has"), [("x86-64-bf16", True), ("x86-64-vnni", False)])
def test_the_instruction_is_used_where_the_target_has_it(name, has):
    """In the inner loop, whose sums stay in registers: no sum is stored between two products."""
    machine = Machine.of(named(name), 2)
    function = dense(Dense(64, 96, "bfloat16", bias=False), machine, Tile(8, 48))
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    text = bfloat16.compiled(module, target=llvm_target(named(name), 2)).mod.inspect_source("asm")
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("\t")]
    found = [number for number, line in enumerate(lines) if line == "vdpbf16ps"]
    assert bool(found) == has
    if has:
        first = lines[found[0] : found[23] + 1]
        assert first.count("vdpbf16ps") == 24
        assert not [line for line in first if line.startswith("vmov") and line.endswith("ups")]

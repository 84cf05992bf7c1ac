"""The dense kernel's tile is searched for on this machine, and what is on record is what is built."""

import ml_dtypes
import numpy as np
import pytest
from graphwright.backends.target import detect
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.tile import Tile
from graphwright.backends.tvm.kernels.tile import choose as analytic
from graphwright.backends.tvm.tune import tiles, tunable, tunables

SHAPE = (9, 64, 40)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_search_records_what_it_measured(dtype):
    target = detect()
    with tunable.asked() as questions:
        before = tunables.dense_tile(*SHAPE, dtype, target)
    assert before == analytic(SHAPE[2], Machine.of(target, target.cores), -(-SHAPE[0] // target.cores))
    ((_, gain),) = tunable.tune_tiles(questions)
    after = tunables.dense_tile(*SHAPE, dtype, target)
    assert tiles.lookup("dense", SHAPE, dtype, target) == {"rows": after.rows, "columns": after.columns}
    assert (gain == 1.0) == (after == before)


def test_what_is_on_record_is_built():
    target = detect()
    tiles.record("dense", SHAPE, "int8", target, {"rows": 2, "columns": 16}, 1.5)
    assert tunables.dense_tile(*SHAPE, "int8", target) == Tile(2, 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_what_is_timed_is_the_product(dtype, monkeypatch):
    """The arrays of the search, through the kernel, against NumPy in float64."""
    called = []
    monkeypatch.setattr(tunables, "timer", lambda call: called.append(call))
    tile = {"rows": 2, "columns": Machine.of(detect(), 1).lanes}
    tunables._build(SHAPE, dtype, detect(), tile)
    called[0]()
    arrays = [tensor.numpy() for tensor in called[0].args]
    _, k, n = SHAPE
    if dtype == "int8":
        x, scale, _, w, w_scale, _, bias, found = arrays
    else:
        x, w, bias, found = arrays
    if dtype == "bfloat16":
        x, w = (each.view(ml_dtypes.bfloat16) for each in (x, w))
    lanes, step = tile["columns"], k // w.shape[1]
    flat = w.reshape(-1, k // step, lanes, step).transpose(1, 3, 0, 2).reshape(k, -1).astype(np.float64)
    expected = x.astype(np.float64) @ flat
    if dtype == "int8":
        expected *= scale[:, None] * w_scale
    np.testing.assert_allclose(found, (expected + bias)[:, :n], rtol=1e-5, atol=1e-4)

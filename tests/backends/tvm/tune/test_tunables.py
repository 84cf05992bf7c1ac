"""The dense kernel's tile is searched for on this machine, and what is on record is what is built."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from graphwright.backends.target import detect, named
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
    assert Tile(**tiles.lookup("dense", SHAPE, dtype, target)) == after
    assert (gain == 1.0) == (after == before)


def test_what_is_on_record_is_built():
    target = detect()
    tiles.record("dense", SHAPE, "int8", target, {"rows": 2, "columns": 16}, 1.5)
    assert tunables.dense_tile(*SHAPE, "int8", target) == Tile(2, 16)


AMX = replace(detect(), name="x86-64-amx", arch="x86_64", isa=named("x86-64-amx").isa, cores=2)
LARGE = (200, 256, 96)


@pytest.fixture
def timed(monkeypatch):
    """Tiles in the order they are timed; those of AMX take as long as `timed.amx`, others a second."""
    built, seconds = [], {}

    def build(shape, dtype, target, tile):
        built.append((tuple(shape), Tile(**tile)))
        return lambda: seconds["amx"] if tile.get("amx") else 1.0

    for name in ("DENSE", "FEW"):
        monkeypatch.setattr(tunables, name, replace(getattr(tunables, name), build=build))
    return built, seconds


@pytest.mark.parametrize(("seconds", "amx"), [(0.5, True), (2.0, False)])
def test_a_build_for_this_machine_times_vectors_and_tiles_once(timed, seconds, amx):
    built, times = timed
    times["amx"], host = seconds, replace(AMX, name="host")
    for _ in range(2):
        assert tunables.dense_tile(*LARGE, "int8", host).amx == amx
    assert [tile.amx for _, tile in built] == [False, True]
    assert tunables.dense_tile(*LARGE, "float32", host) == analytic(96, Machine.of(host, 2), 100)
    assert len(built) == 2
    with tunable.asked() as questions:
        tunables.dense_tile(*LARGE, "int8", host)
    ((_, gain),) = tunable.tune_tiles(questions)  # what a build timed doesn't stand in for a search
    assert (gain > 1) == amx
    assert len(built) > 6
    assert tunables.dense_tile(*LARGE, "int8", host).amx == amx


def test_few_rows_are_timed_over_the_panels_of_many(timed):
    built, times = timed
    times["amx"], host = 0.5, replace(AMX, name="host")
    many = tunables.dense_tile(*LARGE, "bfloat16", host)
    assert many == tunables.dense_tile(*LARGE, "bfloat16", host, 150) == Tile(32, 32, amx=True)
    assert tunables.dense_tile(*LARGE, "bfloat16", host, 12) == Tile(16, 32, amx=True)
    times["amx"] = 2.0
    assert tunables.dense_tile(*LARGE, "bfloat16", host, 3) == Tile(2, 32)
    assert [shape for shape, _ in built] == [LARGE] * 2 + [(12, 256, 96, 32)] * 2 + [(3, 256, 96, 32)] * 2


def test_a_named_machine_has_tiles_for_many_rows(timed):
    built, _ = timed
    assert tunables.dense_tile(*LARGE, "int8", AMX) == Tile(32, 32, amx=True)
    assert not tunables.dense_tile(20, 256, 96, "int8", AMX).amx
    assert not tunables.dense_tile(200, 48, 96, "int8", AMX).amx  # less than a whole tile
    assert not built


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

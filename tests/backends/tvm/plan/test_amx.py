"""Programs whose products run in AMX's tiles: plans, shared panels, and builds for machines that have it."""

from dataclasses import replace

import amx
import numpy as np
import pytest
import tvm
from graphwright.backends import processor
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.build import compile as building
from graphwright.backends.tvm.build.compile import compile_buckets
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.tile import Tile
from graphwright.ir.errors import BundleError
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import parsed
from tvm import relax

HERE = Machine.of(detect(), 2)


RNG = np.random.default_rng(0)
# SwiGLU: two products of the same rows, gated, and one of what they give.
GATED = "g = MatMul (x, gate) s = Sigmoid (g) a = Mul (g, s) u = MatMul (x, up) z = Mul (a, u)"
WEIGHTS = {
    name: (RNG.standard_normal(shape) / 8).astype(np.float32)
    for name, shape in (("gate", (70, 96)), ("up", (70, 96)), ("down", (96, 70)))
}
FEED = {"x": RNG.standard_normal((4, 11, 70)).astype(np.float32)}
SIZES = [{"batch": 4, "length": 11}, {"batch": 1, "length": 3}]


def written(pipeline):
    program = parsed(
        f"{GATED} y = MatMul (z, down)", "float[batch,length,70] x", "float[batch,length,70] y", WEIGHTS
    )
    ran = Pipeline.parse(pipeline).run(program, Context(calibration=[FEED], target=detect()))
    assert ran.ok, ran.steps[-1].error
    return ran.program


@pytest.mark.skipif(HERE.product not in ("vnni512", "vnni256"), reason="tiles take panels as VNNI has them")
@pytest.mark.parametrize(
    "pipeline",
    [
        "quantize-dynamic{min_cosine=0.0}",
        "compute-bfloat16{min_cosine=0.0}",
    ],
)
def test_a_program_in_tiles_answers_as_in_vectors(pipeline, monkeypatch):
    """In int8 to the last bit, over the same panels, for two sizes of call."""
    program, of = written(pipeline), Machine.of
    machine = lambda target, threads: replace(of(target, threads), tiles="plain")
    monkeypatch.setattr(Machine, "of", staticmethod(machine))
    found = []
    for tile in (Tile(4, 32), Tile(32, 32, amx=True)):
        monkeypatch.setattr(building, "dense_tile", lambda *_, tile=tile: tile)
        built = compile_buckets(program, detect(), 2, SIZES)
        assert built.tiles == tile.amx
        found.append((answer(built), built.weights))
    (vectors, panels), (tiles, same) = found
    for name, array in panels.items():
        np.testing.assert_array_equal(same[name], array)
    if "bfloat16" in pipeline:  # in another order
        np.testing.assert_allclose(tiles, vectors, atol=1e-2)
        assert np.abs(tiles - vectors).max() > 0
    else:
        np.testing.assert_array_equal(tiles, vectors)


@pytest.mark.skipif(HERE.product != "vnni512", reason="AMX extends AVX-512")
def test_a_build_for_this_machine_asks_once_and_runs_in_its_tiles(monkeypatch):
    """AMX's own instructions, emulated where the processor lacks them, on threads of TVM's."""
    program, of, wanted = written("quantize-dynamic{min_cosine=0.0}"), Machine.of, []
    intel = {"kind": "llvm", "mcpu": "cooperlake", "mattr": ["+amx-tile", "+amx-int8", "+amx-bf16"]}
    monkeypatch.setattr(building, "llvm_target", lambda *_: tvm.target.Target({**intel, "num-cores": 2}))
    machine = lambda target, threads: replace(of(target, threads), tiles="amx")
    monkeypatch.setattr(Machine, "of", staticmethod(machine))
    monkeypatch.setattr(processor, "offered", lambda arch: frozenset())
    monkeypatch.setattr(processor, "permitted", lambda: wanted.append("tiles") or True)
    found = []
    for tile in (Tile(4, 32), Tile(32, 32, amx=True)):
        monkeypatch.setattr(building, "dense_tile", lambda *_, tile=tile: tile)
        artifact = Tvm().build(program, threads=2, buckets=SIZES[:1])
        with amx.emulated() as counted:
            found.append([artifact.run(FEED)["y"] for _ in range(2)])
            assert (counted.amx_done() > 0) == (tile.amx and "amx_tile" not in detect().isa)
            assert not counted.amx_held()
    np.testing.assert_array_equal(*found)
    assert wanted == ["tiles"]


def answer(built):
    machine, bucket = relax.VirtualMachine(built.executable, tvm.cpu()), built.buckets[0]
    arrays = [FEED["x"], *(built.weights[name] for name in bucket.weights)]
    found = machine[bucket.function](*map(tvm.runtime.tensor, arrays))
    return (found if isinstance(found, tvm.runtime.Tensor) else found[0]).numpy()


@pytest.mark.skipif("amx_tile" in detect().isa, reason="it would run here")
@pytest.mark.parametrize(("rows", "has"), [(44, True), (3, False)])
def test_a_build_for_a_machine_with_amx_has_tiles_for_many_rows_and_says_so(rows, has):
    target, sizes = replace(named("x86-64-amx"), cores=2), [{"batch": 1, "length": rows}]
    artifact = Tvm().build(written("quantize-dynamic{min_cosine=0.0}"), target, 2, buckets=sizes)
    assert ("amxtile" in artifact.compiled.needs) == has
    with pytest.raises(
        BundleError, match=r"amxbf16, amxint8, amxtile.*, which this one lacks" if has else "lacks"
    ):
        artifact.run({"x": FEED["x"][:1, :rows]})

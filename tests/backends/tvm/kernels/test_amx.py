"""Products in tile registers, as TIR spells them and in AMX's own instructions: to the last bit those of
vectors in int8, and against float64 in bfloat16. Where the processor has no AMX, it is emulated."""

import ctypes
import mmap
import re
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import amx
import ml_dtypes
import numpy as np
import pytest
import tvm
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.kernels.dense import Dense, dense
from graphwright.backends.tvm.kernels.dot import halved, panels
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.rows import Finish
from graphwright.backends.tvm.kernels.tile import Tile
from graphwright.backends.tvm.machine import bfloat16
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from kernel_run import call, wide

TARGET = detect()
HERE = replace(Machine.of(TARGET, 2), tiles="plain")
PLAIN = pytest.param(HERE, id="plain")
SPELLINGS = [PLAIN]
if TARGET.arch == "x86_64" and HERE.product == "vnni512":
    SPELLINGS.append(pytest.param(replace(HERE, tiles="amx"), id="amx"))
pytestmark = pytest.mark.skipif(
    HERE.product not in ("vnni512", "vnni256"), reason="tiles take rows and panels as VNNI has them"
)
SMALL, SQUARE, WIDE, TALL = TILES = [
    Tile(16, 16, True),
    Tile(32, 32, True),
    Tile(16, 64, True),
    Tile(48, 16, True),
]
# In bytes k is below a tile, of whole ones, and with a narrow one and half a step behind them.
SHAPES = [
    (37, 67, SQUARE),
    (202, 40, SQUARE),
    (202, 67, WIDE),
    (128, 64, WIDE),
    (150, 16, TALL),
    (64, 5, SMALL),
]


@pytest.fixture(autouse=True, scope="module")
def instructions():
    with amx.emulated() as library:
        yield library


@cache
def kernel(spec, machine, tile):
    """A kernel for a processor of Intel's with this one's vectors, and with AMX. For AMD's LLVM gives tiles
    other numbers (findings/llvm-gives-amx-tiles-other-numbers.sh)."""
    module = tvm.IRModule({"main": dense(spec, machine, tile)})
    target = {"kind": "llvm", "mcpu": "cooperlake" if machine.lanes == 16 else "alderlake"}
    if machine.tiles == "amx":
        target["mattr"] = [f"+{name}" for name in ("amx-tile", "amx-int8", "amx-bf16")]
    return bfloat16.compiled(module, target=tvm.target.Target(target))["main"]


def of_vectors(spec, tile):
    return kernel(spec, HERE, Tile(4, tile.columns))


def integers(rng, m, k, n):
    return rng.integers(0, 256, (m, k)).astype(np.uint8), rng.integers(-128, 128, (k, n)).astype(np.int8)


def brain(array):
    """(bits, numbers) of an array rounded to bfloat16."""
    rounded = array.astype(ml_dtypes.bfloat16)
    return rounded.view(np.uint16), rounded.astype(np.float64)


def dynamic(rng, x, w, tile):
    """Arguments of a dynamic product, from a scale of its rows to a bias."""
    (m, _), n = x.shape, w.shape[1]
    size = -(-n // tile.columns) * tile.columns
    w_scale, bias = rng.random(n, np.float32) / 1e3, rng.standard_normal(n, np.float32)
    sums = w.astype(np.int32).sum(0, dtype=np.int32)
    zero = rng.integers(90, 160, m).astype(np.int32)
    vectors = [wide(vector, size) for vector in (w_scale, sums, bias)]
    return [x, rng.random(m, np.float32) + 0.5, zero, panels(w, tile.columns, 4), *vectors]


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize(("k", "n", "tile"), SHAPES)
def test_integers_are_those_of_vectors_to_the_last_bit(machine, k, n, tile):
    rng, spec = np.random.default_rng(k), Dense(k, n, "dynamic", split="rows" if n % 2 else "columns")
    for m in (1, 7, 16, 17, 33, 97):
        x, w = integers(rng, m, k, n)
        arguments = dynamic(rng, x, w, tile)
        both = kernel(spec, machine, tile), of_vectors(spec, tile)
        found, expected = (call(each, arguments, [((m, n), np.float32)])[0] for each in both)
        np.testing.assert_array_equal(found, expected)
        _, scale, zero, _, w_scale, _, bias = arguments
        exact = (x.astype(np.int64) - zero[:, None]) @ w.astype(np.int64)
        exact = exact * w_scale[:n].astype(np.float64) * scale[:, None] + bias[:n]
        np.testing.assert_allclose(found, exact, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("machine", SPELLINGS)
def test_static_rounding_starts_at_what_its_zero_point_adds(machine):
    rng, k, n, tile = np.random.default_rng(0), 72, 40, TILES[1]
    finish = Finish(floats=False, rounds="static")
    spec = Dense(k, n, "static", activation="gelu_rough", finish=finish)
    both = kernel(spec, machine, tile), of_vectors(spec, tile)
    for m in (5, 70):
        x, w = integers(rng, m, k, n)
        _, _, _, packed, scale, sums, bias = dynamic(rng, x, w, tile)
        arguments = [x, packed, scale, -100 * sums, bias, np.array([40, 12], np.float32)]
        found, expected = (call(each, arguments, [((m, n), np.uint8)])[0] for each in both)
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(found)) > 30


@pytest.mark.parametrize("machine", SPELLINGS)
def test_rows_are_whole_before_they_are_rounded(machine):
    rng, k, n, tile = np.random.default_rng(0), 64, 72, TILES[1]
    finish = Finish(residual=True, rounds="dynamic")
    spec = Dense(k, n, "dynamic", finish=finish)
    both = kernel(spec, machine, tile), of_vectors(spec, tile)
    for m in (1, 3, 40, 75):
        x, w = integers(rng, m, k, n)
        arguments = [*dynamic(rng, x, w, tile), rng.standard_normal((m, n), np.float32)]
        results = [((m, n), np.float32), ((m, n), np.uint8), (m, np.float32), (m, np.int32)]
        for found, expected in zip(*(call(each, arguments, results) for each in both), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize(("k", "n", "tile"), [((k + 1) // 2, n, tile) for k, n, tile in SHAPES])
def test_bfloat16_against_float64(machine, k, n, tile):
    rng, size = np.random.default_rng(k), -(-n // tile.columns) * tile.columns
    (w, weight), bias = brain(rng.standard_normal((k, n), np.float32)), rng.standard_normal(n, np.float32)
    for m in (1, 16, 19, 100):
        x, exact = brain(rng.standard_normal((m, k), np.float32))
        arguments = [x, panels(w, tile.columns, 2), wide(bias, size)]
        (found,) = call(kernel(Dense(k, n, "bfloat16"), machine, tile), arguments, [((m, n), np.float32)])
        np.testing.assert_allclose(found, exact @ weight + bias, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("machine", SPELLINGS)
def test_a_gated_product_whose_rows_are_rounded_for_the_next(machine):
    rng, k, n, tile = np.random.default_rng(0), 70, 45, TILES[1]
    (up, up_exact), (gate, gate_exact) = (brain(rng.standard_normal((k, n), np.float32) / 5) for _ in "ab")
    weight = panels(halved(up, gate, tile.columns), tile.columns, 2)
    finish = Finish(rounds="bfloat16")
    spec = Dense(k, n, "bfloat16", bias=False, activation="silu", gated=True, finish=finish)
    for m in (9, 64):
        x, exact = brain(rng.standard_normal((m, k), np.float32))
        y, stored = call(
            kernel(spec, machine, tile), [x, weight], [((m, n), np.float32), ((m, n), np.uint16)]
        )
        z = exact @ gate_exact
        np.testing.assert_allclose(y, exact @ up_exact * z / (1 + np.exp(-z)), atol=1e-5, rtol=1e-6)
        np.testing.assert_array_equal(stored, brain(y)[0])


@pytest.mark.skipif(len(SPELLINGS) == 1, reason="AMX extends AVX-512")
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_both_spellings_give_the_same_bits(tile):
    """Each sum of bfloat16 is rounded where the processor rounds it: another order would show."""
    rng, m, k, n = np.random.default_rng(1), 50, 77, 40
    x, w = (brain(rng.standard_normal(shape, np.float32))[0] for shape in ((m, k), (k, n)))
    spec = Dense(k, n, "bfloat16", bias=False)
    found = [
        call(kernel(spec, machine, tile), [x, panels(w, tile.columns, 2)],
             [((m, n), np.float32)])[0]
        for machine in (HERE, replace(HERE, tiles="amx"))
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("machine", SPELLINGS)
@pytest.mark.parametrize("tile", [SQUARE, WIDE], ids=str)
def test_nothing_is_read_behind_rows_and_panels(machine, tile):
    """A page that nobody may read follows each; what k leaves of a tile and of a step is read as well."""
    rng, m, k, n = np.random.default_rng(0), 64, 71, 64
    arguments = dynamic(rng, *integers(rng, m, k, n), tile)
    own = kernel(Dense(k, n, "dynamic"), machine, tile)
    (expected,) = call(own, arguments, [((m, n), np.float32)])
    out = tvm.runtime.tensor(np.zeros((m, n), np.float32))
    with at_the_end_of_a_page(arguments[0]) as x, at_the_end_of_a_page(arguments[3]) as w:
        given = [x, *arguments[1:3], w, *arguments[4:]]
        fixed = [tvm.runtime.from_dlpack(each) if each is x or each is w else tvm.runtime.tensor(each)
                 for each in given]  # fmt: skip
        own(*fixed, out)
        del fixed
    np.testing.assert_array_equal(out.numpy(), expected)


@contextmanager
def at_the_end_of_a_page(array):
    """A copy whose last byte is the last that may be read."""
    pages = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    system = ctypes.CDLL(None, use_errno=True)
    copy = np.frombuffer(memory, array.dtype, array.size, pages - array.nbytes).reshape(array.shape)
    copy[:] = array
    assert not system.mprotect(ctypes.c_void_p(place + pages), mmap.PAGESIZE, 0)
    yield copy


@pytest.mark.skipif(len(SPELLINGS) == 1, reason="AMX extends AVX-512")
def test_every_thread_gives_its_tiles_back(instructions):
    done, released = instructions.amx_done(), instructions.amx_released()
    machine, rng, tile = replace(HERE, tiles="amx"), np.random.default_rng(0), TILES[0]
    own = kernel(Dense(64, 16, "dynamic"), machine, tile)
    call(own, dynamic(rng, *integers(rng, 3, 64, 16), tile), [((3, 16), np.float32)])
    if "amx_tile" not in TARGET.isa:
        assert instructions.amx_done() > done
        assert instructions.amx_released() == released + HERE.threads
        assert not instructions.amx_held()


@pytest.mark.parametrize(("rows", "name"), [("dynamic", "tdpbusd"), ("bfloat16", "tdpbf16ps")])
@pytest.mark.parametrize("tile", [SQUARE, WIDE, TALL], ids=str)
def test_a_named_target_has_the_instructions(rows, name, tile):
    check_instructions(rows, name, tile, llvm_target(named("x86-64-amx"), 2))


@pytest.mark.parametrize("processor", ["emeraldrapids", "graniterapids", "diamondrapids"])
def test_processors_with_amx_have_the_instructions(processor):
    check_instructions("dynamic", "tdpbusd", WIDE, tvm.target.Target({"kind": "llvm", "mcpu": processor}))


def check_instructions(rows, name, tile, llvm):
    """With the registers that the kernel names: each has a size of its own."""
    machine = Machine.of(named("x86-64-amx"), 2)
    module = tvm.IRModule({"main": dense(Dense(200, 64, rows, bias=False), machine, tile)})
    built = bfloat16.compiled(module, target=llvm).mod
    lines = [line.split() for line in built.inspect_source("asm").splitlines() if line.startswith("\t")]
    words = [words[0] for words in lines]
    assert words.count("ldtilecfg") == words.count("tilerelease") == (1 if tile.rows == 16 else 2)
    found = {tuple(re.findall(r"tmm(\d)", " ".join(each)))[::-1] for each in lines if each[0] == name}
    text = str(built.inspect_source("ll"))
    assert found == set(re.findall(rf"@llvm.x86.{name}\(i8 (\d), i8 (\d), i8 (\d)\)", text))
    assert len(found) > tile.rows // 16 * (tile.columns // 16)  # whole tiles, and narrow ones behind them

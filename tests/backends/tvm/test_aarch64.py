"""Kernels and programs compiled for aarch64, run there under qemu: NEON alone, and with dot products."""

import emulated
import ml_dtypes
import numpy as np
import pytest
import tvm
from graphwright.backends.bundles.record import MODULE, WEIGHTS
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.target import named
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.kernels.codes import by_panel, codes_of, packed
from graphwright.backends.tvm.kernels.dense import Dense, dense
from graphwright.backends.tvm.kernels.dot import product_of
from graphwright.backends.tvm.kernels.few_bits import FewBits, columns_of, few_bits
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.tile import choose
from graphwright.backends.tvm.machine.link import link
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from graphwright.backends.tvm.run.kept import Kept
from graphwright.backends.tvm.run.weights_file import read
from graphwright.backends.tvm.tune import tunables
from graphwright.ir.inputs import probe
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.compute_bfloat16 import ComputeBfloat16
from zoo import onnx_program

MACHINES = [("aarch64-neon", "cortex-a53"), ("aarch64-dotprod", "cortex-a76")]


@pytest.mark.parametrize(("name", "cpu"), MACHINES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("rows", [1, 13])
def test_dense_products_are_right_there(name, cpu, dtype, rows, tmp_path):
    k, n, target = 24, 19, named(name)
    machine, integers = Machine.of(target, 2), dtype == "int8"
    tile = choose(n, machine)
    spec = Dense(k, n, tunables._ROWS[dtype])
    function = dense(spec, machine, tile).with_attr("global_symbol", "main")
    link(
        tvm.compile(tvm.IRModule({"main": function}), target=llvm_target(target, 2)),
        tmp_path / "kernel.so",
        target.arch,
    )
    product = product_of(spec.x, machine)
    arrays = tunables._arrays(rows, k, n, tile, product, integers)
    found = emulated.call(tmp_path / "kernel.so", "main", arrays, cpu)[-1]
    weights = arrays[3] if integers else arrays[1]
    step = product.step
    flat = weights.reshape(-1, k // step, tile.columns, step).transpose(1, 3, 0, 2).reshape(k, -1)
    x, w = (each.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else each for each in (arrays[0], flat))
    expected = x.astype(np.float64) @ w.astype(np.float64)
    if integers:
        expected *= arrays[1][:, None] * arrays[4]
    np.testing.assert_allclose(found, (expected + arrays[-2])[:, :n], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("name", "cpu"), MACHINES)
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_few_bits_are_right_there(name, cpu, bits, tmp_path):
    """Rows that rounding does not change, so that the result is exact."""
    rng, k, n, m, group, target = np.random.default_rng(bits), 48, 19, 5, 16, named(name)
    machine = Machine.of(target, 2)
    how, columns = codes_of(machine, "int8", bits), columns_of(machine)
    spec = FewBits(k, n, bits, group, "int8", 2 ** (bits - 1), "float16")
    function = few_bits(spec, machine).with_attr("global_symbol", "main")
    built = tvm.compile(tvm.IRModule({"main": function}), target=llvm_target(target, 2))
    link(built, tmp_path / "kernel.so", target.arch)
    x = rng.integers(-127, 128, (m, k)).astype(np.float32)
    x[:, ::group] = 127
    codes = rng.integers(0, 2**bits, (k, n)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.02, (k // group, n)).astype(np.float16)
    arrays = [x, packed(codes, how, group, columns), by_panel(scales, columns), np.zeros((m, n), np.float32)]
    found = emulated.call(tmp_path / "kernel.so", "main", arrays, cpu)[-1]
    weight = (codes.astype(np.float64) - 2 ** (bits - 1)) * np.repeat(scales.astype(np.float64), group, 0)
    np.testing.assert_allclose(found, x @ weight, rtol=1e-5, atol=1e-2)


def there(program, name, cpu, feed, sizes):
    """Outputs of a program compiled for a machine, at its own sizes, from that machine."""
    built = Tvm().build(program, named(name), 2, buckets=[sizes])
    (function,) = built.compiled.functions
    weights = read(built.folder / WEIGHTS, built.compiled.places)
    arrays = [feed[spec] for spec in built.input_names]
    if function.mask is not None:
        arrays += Kept(feed[function.mask].shape).of(feed[function.mask] != 0)
    arrays += [weights[each] for each in function.weights]
    return emulated.call(built.folder / MODULE, function.name, arrays, cpu)


@pytest.mark.parametrize(("name", "cpu"), MACHINES)
def test_a_program_answers_there_as_here(name, cpu, make):
    """The encoder of the other tests, against NumPy in float64."""
    feed = make.feed(2, 6, 2)
    (found,) = there(make.encoder(), name, cpu, feed, {"batch": 2, "length": 6})
    np.testing.assert_allclose(found, make.expected(make.weights(), feed), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_attention_norms_and_padding_are_right_there():
    """BERT of the zoo, its padding left out, against ONNX Runtime here; in bfloat16 too."""
    program, sizes = onnx_program("bert", "eager"), {"batch": 2, "length": 9}
    narrow = ComputeBfloat16(min_cosine=0.0).run(program.clone(), Context()).program
    feed = probe.feed(program, sizes, "right", rng=np.random.default_rng(0))
    kept = feed["attention_mask"] != 0
    assert not kept.all()
    expected, rounded = (
        next(iter(OnnxRuntime().build(each, threads=1).run(feed).values()))[kept]
        for each in (program, narrow)
    )
    for name, cpu in MACHINES:
        (found,) = there(program, name, cpu, feed, sizes)
        np.testing.assert_allclose(found[kept], expected, rtol=1e-4, atol=1e-5)
    (found,) = there(narrow, *MACHINES[0], feed, sizes)
    # A number near a tie may round the other way.
    assert ((found[kept] - rounded) ** 2).mean() < 0.01 * ((expected - rounded) ** 2).mean()

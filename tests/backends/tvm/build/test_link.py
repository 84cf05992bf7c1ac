"""Libraries linked for another architecture, run there under qemu with TVM's own runtime."""

import shutil
import sys

import emulated
import numpy as np
import pytest
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.machine import link as linking
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from graphwright.backends.tvm.run.library import compiler
from graphwright.ir.errors import BackendError

ROWS, DEEP, COLUMNS = 5, 33, 19  # multiples of no vector's width


def perceptron(target):
    """(x, w, bias) -> softmax(x @ w + bias), and the same before softmax, compiled for a target."""
    tvm = compiler()
    from tvm import relax

    names = {"x": (ROWS, DEEP), "w": (DEEP, COLUMNS), "bias": (COLUMNS,)}
    x, w, bias = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in names.items())
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w, bias]):
        with builder.dataflow():
            sums = builder.emit(relax.op.add(relax.op.matmul(x, w), bias))
            both = builder.emit_output(relax.Tuple([relax.op.nn.softmax(sums), sums]))
        builder.emit_func_output(both)
    return tvm.compile(builder.get(), target=llvm_target(target, 2))


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(shape).astype("float32") for shape in ((ROWS, DEEP), (DEEP, COLUMNS), COLUMNS)
    ]


def check(outputs, arrays):
    x, w, bias = (array.astype(np.float64) for array in arrays)
    sums = x @ w + bias
    grown = np.exp(sums - sums.max(axis=1, keepdims=True))
    for found, expected in zip(outputs, (grown / grown.sum(axis=1, keepdims=True), sums), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "cpu"), [("aarch64-neon", "cortex-a53"), ("aarch64-dotprod", "cortex-a76")])
def test_a_library_for_aarch64_runs_there(name, cpu, arrays, tmp_path):
    target = named(name)
    linking.link(perceptron(target), tmp_path / "model.so", target.arch)
    check(emulated.call(tmp_path / "model.so", "main", arrays, cpu), arrays)


@pytest.mark.slow  # its first link builds what stands for the C library
def test_ziglang_links_where_there_is_no_cross_compiler(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    target = named("aarch64-neon")
    assert linking.linker(target.arch)[:3] == [sys.executable, "-m", "ziglang"]
    linking.link(perceptron(target), tmp_path / "model.so", target.arch)
    monkeypatch.undo()
    check(emulated.call(tmp_path / "model.so", "main", arrays, "cortex-a53"), arrays)


def test_a_library_for_this_machine_loads_here(arrays, tmp_path):
    tvm = compiler()
    from tvm import relax

    target = detect()
    linking.link(perceptron(target), tmp_path / "model.so", target.arch)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), tvm.cpu())
    check([out.numpy() for out in machine["main"](*map(tvm.runtime.tensor, arrays))], arrays)


def test_without_any_linker_both_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(linking, "find_spec", lambda name: None)
    foreign = "aarch64" if detect().arch != "aarch64" else "x86_64"
    with pytest.raises(BackendError, match=r"gcc-(aarch64|x86-64)-linux-gnu, .*ziglang"):
        linking.linker(foreign)


def test_what_the_linker_says_is_passed_on(tmp_path):
    target = named("aarch64-neon")
    executable = perceptron(detect())  # objects of another architecture
    if detect().arch == "aarch64":
        target = named("x86-64-avx2")
    with pytest.raises(BackendError, match=r"cannot link the compiled model: \S"):
        linking.link(executable, tmp_path / "model.so", target.arch)

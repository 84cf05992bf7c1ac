"""Generic schedules: right for every shape, applied where they fit, and no function lost where they don't."""

import numpy as np
import pytest
import tvm
import tvm_run
from graphwright.backends.target import named
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from graphwright.backends.tvm.schedule.generic import schedule_generic
from graphwright.backends.tvm.schedule.generic_blocks import Fit, inline
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from tvm import relax
from tvm.relax import op
from tvm.s_tir import Schedule

RNG = np.random.default_rng(0)


def module(build, *arrays):
    """A Relax module that computes build(*variables)."""
    builder = relax.BlockBuilder()
    kinds = [relax.TensorType(array.shape, str(array.dtype)) for array in arrays]
    variables = [relax.Var(f"x{number}", kind) for number, kind in enumerate(kinds)]
    with builder.function("main", variables):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*variables)))
        builder.emit_func_output(result)
    return builder.get()


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def functions(scheduled):
    return [f for _, f in scheduled.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]


def check(build, exact, *arrays, tolerance=1e-5):
    """Against float64, scaled by max(1, |exact|). Returns how the functions are written."""
    whole = module(build, *arrays)
    [found] = tvm_run.compiled(whole)(*arrays)
    expected = exact(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays))
    assert found.shape == expected.shape
    assert np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))) < tolerance
    scheduled = schedule_generic(tvm_run.lowered(whole), tvm_run.target())
    return "\n".join(function.script() for function in functions(scheduled))


def softmax(x):
    return op.nn.softmax(x, -1)


def layer_norm(x):
    ones = relax.const(np.ones(x.ty.shape.values[-1].value), "float32")
    return op.nn.layer_norm(x, ones, ones, -1)


def exact_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) + 1


def turned(x):
    return op.permute_dims(op.reshape(x, (1, 64, 12, 32)), [0, 2, 3, 1])


def convolved(x, w):
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    return sum(np.einsum("bcl,oc->bol", wide[:, :, k : k + x.shape[2]], w[:, :, k]) for k in range(3))


THREADS, BOTH = ("parallel",), ("parallel", "vectorized")
TILED = (*BOTH, "unroll")
# (what, exactly, shapes, which parts of a schedule must be there)
CASES = {
    "softmax": (softmax, lambda x: special.softmax(x, -1), [(2, 12, 64, 64)], BOTH),
    "norm": (layer_norm, exact_norm, [(4, 32, 384)], BOTH),
    "mean of tokens": (lambda x: op.mean(x, [1]), lambda x: x.mean(1), [(4, 64, 96)], BOTH),
    "mean of features": (lambda x: op.mean(x, [-1]), lambda x: x.mean(-1), [(4, 64, 96)], BOTH),
    "largest of all": (lambda x: op.max(x), lambda x: x.max(), [(4, 64, 96)], BOTH),
    "sum": (lambda x, y: op.add(x, y), lambda x, y: x + y, [(4, 64, 96)] * 2, BOTH),
    "transpose": (turned, lambda x: x.reshape(1, 64, 12, 32).transpose(0, 2, 3, 1), [(1, 64, 384)], THREADS),
    "concat": (
        lambda x, y: op.concat([x, y], -1),
        lambda x, y: np.concatenate([x, y], -1),
        [(2, 64, 96)] * 2,
        THREADS,
    ),
    "product": (lambda x, y: op.matmul(x, y), np.matmul, [(64, 96), (96, 80)], TILED),
    "products of heads": (
        lambda x, y: op.multiply(op.matmul(x, y), relax.const(0.25)),
        lambda x, y: (x @ y) / 4,
        [(2, 12, 16, 32), (2, 12, 32, 16)],
        TILED,
    ),
    "product, then gelu": (
        lambda x, y: op.nn.gelu(op.matmul(x, y)),
        lambda x, y: (x @ y) * special.ndtr(x @ y),
        [(40, 64), (64, 48)],
        TILED,
    ),
    "convolution": (lambda x, w: op.nn.conv1d(x, w, padding=1), convolved, [(2, 12, 64), (32, 12, 3)], BOTH),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_right_and_scheduled(name):
    build, exact, shapes, parts = CASES[name]
    written = check(build, exact, *(normal(*shape) for shape in shapes))
    for part in parts:
        assert f"T.{part}" in written


SMALL = {
    "softmax": (softmax, lambda x: special.softmax(x, -1)),
    "norm": (layer_norm, exact_norm),
    "mean": (lambda x: op.mean(x, [1], True), lambda x: x.mean(1, keepdims=True)),
    "scaled rows": (
        lambda x: op.divide(x, op.sqrt(op.mean(op.multiply(x, x), [-1], True))),
        lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True)),
    ),
}


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8, deadline=None, database=None, derandomize=True)
@given(st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 70)))
def test_rows_of_any_size(name, shape):
    build, exact = SMALL[name]
    check(build, exact, normal(*shape), tolerance=5e-5)


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.lists(st.integers(1, 3), max_size=2), *[st.integers(1, 70)] * 3)
def test_products_of_any_size(batch, m, k, n):
    check(lambda x, y: op.matmul(x, y), np.matmul, normal(*batch, m, k), normal(*batch, k, n))


def test_products_of_integers_are_exact():
    x, y = (RNG.integers(-500, 500, shape).astype(np.int32) for shape in ((24, 40), (40, 32)))
    check(lambda x, y: op.matmul(x, y, out_dtype="int32"), np.matmul, x, y, tolerance=1e-12)


@pytest.mark.parametrize(
    ("build", "exact"),
    [
        (lambda x: op.argmax(x, -1), lambda x: x.argmax(-1)),
        (lambda x: op.cumsum(x, -1), lambda x: x.cumsum(-1)),
    ],
)
def test_what_no_rule_fits_stays_as_it_was(build, exact):
    x = normal(3, 50)
    check(build, exact, x)
    lowered = tvm_run.lowered(module(build, x))
    kept = functions(schedule_generic(lowered, tvm_run.target()))
    assert all(a.same_as(b) for a, b in zip(functions(lowered), kept, strict=True))


def rotated(x, cosine, sine):
    """Heads turned by a rotary embedding and laid side by side again."""
    batch, heads, length, size = (int(d) for d in x.ty.shape.values)
    first, second = (op.strided_slice(x, [3], [at], [at + size // 2]) for at in (0, size // 2))
    turned = op.concat([op.negative(second), first], -1)
    y = op.add(op.multiply(x, cosine), op.multiply(turned, sine))
    return op.reshape(op.permute_dims(y, [0, 2, 1, 3]), (batch, length, heads * size))


def exact_rotation(x, cosine, sine):
    first, second = np.split(x, 2, -1)
    y = x * cosine + np.concatenate([-second, first], -1) * sine
    return y.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


@pytest.mark.parametrize(
    "shape", [(3, 2, 11, 8), (3, 4, 11, 8), (3, 6, 11, 4), (2, 4, 33, 4), (1, 9, 128, 64)]
)
def test_branches_behind_a_reshape_read_what_they_should(shape):
    """LLVM's loop vectoriser took x % 8 for x, and read past the tables."""
    table = (1, 1, *shape[2:])
    check(rotated, exact_rotation, normal(*shape), normal(*table), normal(*table))


@pytest.mark.parametrize("name", ["graphwright.kernel", "tirx.is_scheduled"])
def test_finished_functions_are_left_alone(name):
    lowered = tvm_run.lowered(module(softmax, normal(4, 64, 96)))
    [(variable, function)] = [
        (v, f) for v, f in lowered.functions_items() if isinstance(f, tvm.tirx.PrimFunc)
    ]
    finished = function.with_attr(name, "dense")
    lowered.update_func(variable, finished)
    assert functions(schedule_generic(lowered, tvm_run.target()))[0].same_as(finished)


def test_the_module_is_not_edited():
    lowered = tvm_run.lowered(module(softmax, normal(4, 64, 96)))
    [before] = functions(lowered)
    [after] = functions(schedule_generic(lowered, tvm_run.target()))
    assert functions(lowered)[0].same_as(before)
    assert not after.same_as(before)


@pytest.mark.parametrize(("target", "lanes"), [("x86-64-vnni", 16), ("x86-64-avx2", 8), ("aarch64-neon", 4)])
def test_vectors_are_as_wide_as_the_target_has_them(target, lanes):
    llvm = llvm_target(named(target), 2)
    lowered = tvm_run.lowered(module(lambda x, y: op.add(x, y), normal(64, 960), normal(64, 960)))
    [function] = functions(schedule_generic(lowered, llvm))
    assert f"T.vectorized(T.int64({lanes}))" in function.script()


def test_a_costly_value_is_not_computed_for_each_reader():
    """The exponentials of a softmax have two; the difference inside of them is no block of its own."""
    [function] = functions(tvm_run.lowered(module(softmax, normal(4, 64, 96))))
    schedule = Schedule(tvm.IRModule({"main": function}))
    inline(schedule)
    assert schedule.mod["main"].script().count("T.exp(") == 1
    assert len(schedule.get_child_blocks(schedule.get_sblock("root"))) == 4


def test_lanes_follow_the_type():
    assert [Fit(512, 32, 2).lanes(kind) for kind in ("float32", "int8", "float64", "bool")] == [16, 64, 8, 64]

"""Several sizes in one module: kernels, weights and working memory shared between them."""

import re

import numpy as np
import pytest
import zoo
from graphwright.backends.target import detect
from graphwright.backends.tvm.run.library import compiler

tvm = compiler()
from graphwright.backends.tvm.build.bindings import called, edited  # noqa: E402 (tvm comes first)
from graphwright.backends.tvm.build.compile import compile_buckets  # noqa: E402
from graphwright.backends.tvm.build.joined import Joined  # noqa: E402
from graphwright.backends.tvm.build.memory import SharedStorage  # noqa: E402
from tvm import relax  # noqa: E402
from tvm.relax import transform  # noqa: E402

RNG = np.random.default_rng(0)
SQUARE = RNG.standard_normal((32, 32)).astype(np.float32)
TALL = RNG.standard_normal((32, 96)).astype(np.float32)


def lowered(rows, *weights):
    """x (rows, 32) times each weight in turn, with a ReLU in between, every operator a kernel."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((rows, 32), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = x
            for weight in weights:
                y = builder.emit(relax.op.nn.relu(relax.op.matmul(y, relax.const(weight))))
            y = builder.emit_output(relax.op.nn.softmax(y))
        builder.emit_func_output(y)
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    return tvm.transform.Sequential([*passes, transform.DeadCodeElimination()])(builder.get())


def kernels(module):
    return sorted(
        name.name_hint
        for name, function in module.functions_items()
        if isinstance(function, tvm.tirx.PrimFunc)
    )


def test_equal_weights_are_one_and_small_ones_stay_constants():
    joined = Joined()
    assert joined.add(lowered(2, SQUARE, SQUARE.copy(), TALL), "a") == ("w0", "w1")
    assert joined.add(lowered(3, SQUARE * 2, TALL), "b") == ("w2", "w1")
    assert joined.add(lowered(3, SQUARE), "c") == ("w0",)
    np.testing.assert_array_equal(joined.weights.arrays["w0"], SQUARE)
    small = np.ones((32, 4), np.float32)
    assert joined.add(lowered(2, small), "d") == ()


def test_weights_of_equal_bytes_and_other_shapes_are_two():
    joined = Joined()
    zeros = np.zeros((32, 64), np.float32)
    assert len(joined.add(lowered(2, zeros, zeros.reshape(64, 32)), "a")) == 2


def test_equal_kernels_are_one_and_others_get_names_of_their_own():
    joined = Joined()
    joined.add(lowered(2, SQUARE, SQUARE), "a")
    once = kernels(joined.module)
    joined.add(lowered(2, SQUARE * 2), "b")
    assert kernels(joined.module) == once
    joined.add(lowered(3, SQUARE), "c")
    assert len(kernels(joined.module)) == 2 * len(once)


def planned(module):
    passes = [
        transform.ToNonDataflow(), transform.RemovePurityChecking(), transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]  # fmt: skip
    return tvm.transform.Sequential(passes)(module)


def storages(function):
    found = re.findall(r"alloc_storage\(R\.shape\(\[(\d+)\]\)", function.script())
    return sorted(map(int, found), reverse=True)


def test_every_function_has_the_storages_of_the_one_that_needs_most():
    joined = Joined()
    for name, rows, weights in (("a", 2, (SQUARE, TALL)), ("b", 64, (SQUARE, SQUARE)), ("c", 8, (TALL,))):
        joined.add(lowered(rows, *weights), name)
    module = planned(joined.module)
    before = {name: storages(module[name]) for name in "abc"}
    after = {name: storages(SharedStorage()(module)[name]) for name in "abc"}
    common = [max(sizes[n] for sizes in before.values() if len(sizes) > n) for n in range(2)]
    assert before["a"] != before["b"]
    assert after == {name: common[: len(sizes)] for name, sizes in before.items()}
    assert storages(module["a"]) == before["a"]  # the module given is not edited


def test_a_binding_can_be_replaced_or_dropped():
    module = planned(lowered(2, SQUARE))
    text = edited(
        module["main"], lambda value: None if called(value).endswith("alloc_storage") else value
    ).script()
    assert "alloc_storage" not in text
    assert "alloc_tensor" in text


def test_weights_are_not_checked_at_every_call(make):
    built = compile_buckets(make.encoder(), detect(), 1, [{"batch": 1, "length": 4}])
    text = built.executable.as_text()
    assert len(built.buckets[0].weights) == 2
    # Both of each input's: its dtype and its shape.
    assert len(re.findall(r"call +vm\.builtin\.(check_tensor_info|match_shape)", text)) == 4


def test_shapes_and_views_are_made_once_and_nothing_is_killed():
    program = zoo.fx_program("bert")
    text = compile_buckets(program, detect(), 1, [{"batch": 2, "length": 6}]).executable.as_text()
    made = re.findall(r"call +(vm\.builtin\.(?:make_shape|alloc_tensor) +in: .*?)dst", text)
    assert 4 < len(made) == len(set(made))
    assert "null_value" not in text
    assert "tuple" not in text


@pytest.mark.parametrize("sizes", [{"batch": 3, "length": 5}, {"batch": 1, "length": 12}])
def test_the_program_is_not_edited(make, sizes):
    program = make.encoder()
    before = program.fingerprint()
    built = compile_buckets(program, detect(), 1, [sizes])
    assert program.fingerprint() == before
    assert dict(built.buckets[0].sizes) == sizes
    assert built.buckets[0].inputs == ("input_ids", "attention_mask")

"""The rewrites of imported Relax, one by one: what is left, and that it computes the same."""

import numpy as np
import pytest
import torch
import tvm_run
from graphwright.backends.tvm.frontend.narrow import keeping_narrow
from graphwright.backends.tvm.frontend.simplify import simplified
from tvm import relax
from tvm.relax import op
from tvm.relax.transform import DeadCodeElimination, FoldConstant

RNG = np.random.default_rng(0)
SCALE = relax.const(0.5, "float32")


def module(build, *arrays):
    """A Relax module that computes build(emit, *variables)."""
    builder = relax.BlockBuilder()
    kinds = [relax.TensorType(array.shape, str(array.dtype)) for array in arrays]
    variables = [relax.Var(f"x{number}", kind) for number, kind in enumerate(kinds)]
    with builder.function("main", variables):
        with builder.dataflow():
            result = builder.emit_output(build(builder.emit, *variables))
        builder.emit_func_output(result)
    return builder.get()


def check(build, left, *arrays):
    """The operators that are left, and equal results."""
    before = module(build, *arrays)
    after = DeadCodeElimination()(simplified(before))
    assert tvm_run.operators(after) == left
    [expected], [found] = (tvm_run.compiled(m, level=0)(*arrays) for m in (before, after))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


X = normal(2, 3, 4, 5)
MASK = np.array([[True, True, False, True], [True, False, False, True]])


def test_permutations_of_permutations():
    def twice(first, second):
        return lambda emit, x: op.negative(emit(op.permute_dims(emit(op.permute_dims(x, first)), second)))

    check(twice([0, 2, 1, 3], [0, 2, 3, 1]), ["permute_dims", "negative"], X)
    check(twice([3, 0, 1, 2], [1, 2, 3, 0]), ["negative"], X)


def test_rows_are_flattened_behind_what_treats_each_by_itself():
    weight, bias, gain = (relax.const(normal(*s)) for s in ((5, 5), (5,), (5,)))

    def layer(emit, x):
        rows = emit(op.reshape(x, (24, 5)))
        normed = emit(op.nn.layer_norm(rows, gain, bias, [-1], 1e-5))
        product = emit(op.add(emit(op.matmul(normed, weight)), bias))
        total = emit(op.add(rows, emit(op.nn.gelu(product))))
        return op.reshape(emit(op.clip(total, -1.0, 1.0)), (2, 3, 4, 5))

    check(layer, ["nn.layer_norm", "matmul", "add", "nn.gelu", "add", "clip"], X)


def test_rows_stay_flat_beside_what_differs_by_row():
    def added(other):
        return lambda emit, x: op.add(emit(op.reshape(x, (24, 5))), relax.const(other))

    check(added(normal(24, 5)), ["reshape", "add"], X)
    check(added(normal(24, 1)), ["reshape", "add"], X)
    check(added(normal(1, 5)), ["add", "reshape"], X)
    norm = [relax.const(normal(24)) for _ in range(2)]
    check(
        lambda emit, x: op.nn.layer_norm(emit(op.reshape(x, (24, 5))), *norm, [0], 1e-5),
        ["reshape", "nn.layer_norm"], X,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_constants_are_turned_at_once(dtype):
    """Also those whose bytes constant folding must not see."""
    held = (normal(4, 3, 2) * 40).astype(dtype)

    def product(emit, x):
        turned = emit(op.permute_dims(emit(op.reshape(relax.const(held, dtype), (4, 6)))))
        return op.add(x, emit(op.astype(turned, "float32")))

    check(product, ["astype", "add"] if dtype != "float32" else ["add"], normal(6, 4))


def test_reshapes_of_reshapes():
    check(lambda emit, x: op.reshape(emit(op.reshape(x, (6, 20))), (24, 5)), ["reshape"], X)
    check(lambda emit, x: op.add(emit(op.reshape(emit(op.reshape(x, (6, 20))), X.shape)), x), ["add"], X)


def test_a_transpose_behind_merged_axes_is_one_permutation():
    """As torch's exporter spells the transpose of keys."""

    def transpose(emit, x):
        merged = emit(op.permute_dims(emit(op.reshape(x, (6, 4, 5))), [0, 2, 1]))
        return op.reshape(merged, (2, 3, 5, 4))

    check(transpose, ["permute_dims"], X)


def test_a_transpose_that_mixes_axes_stays():
    def transpose(emit, x):
        merged = emit(op.permute_dims(emit(op.reshape(x, (6, 4, 5))), [0, 2, 1]))
        return op.reshape(merged, (3, 2, 5, 4))

    check(transpose, ["reshape", "permute_dims", "reshape"], X)


@pytest.mark.parametrize("whole", [True, False])
def test_indexing_every_element_in_order_is_a_reshape(whole):
    rows = np.arange(2).reshape(2, 1, 1, 1)
    columns = np.arange(4).reshape(1, 1, 1, 4) if whole else np.array([0, 1, 2, 2]).reshape(1, 1, 1, 4)
    pairs = np.stack(np.broadcast_arrays(rows, columns), -1)
    x = normal(2, 4)
    left = ["reshape"] if whole else []
    check(lambda emit, x: op.gather_nd(x, relax.const(pairs, "int64")), left or ["gather_nd"], x)
    index = (relax.const(rows, "int64"), relax.const(columns, "int64"))
    check(lambda emit, x: op.index_tensor(x, index), left or ["index_tensor"], x)


def test_a_condition_that_always_holds():
    """Its mask stays a row of keys, where all that is added to broadcasts."""

    def masked(emit, keep, scores):
        always = relax.const(np.ones((1, 1, 4, 1), bool))
        both = emit(op.logical_and(always, emit(op.reshape(keep, (2, 1, 1, 4)))))
        wide = emit(op.broadcast_to(both, (2, 1, 4, 4)))
        hidden = emit(op.where(wide, relax.const(0.0), relax.const(-1e9)))
        return op.add(scores, hidden)

    before = module(masked, MASK, normal(2, 3, 4, 4))
    after = DeadCodeElimination()(simplified(before))
    assert tvm_run.operators(after) == ["reshape", "where", "add"]
    check(masked, ["reshape", "where", "add"], MASK, normal(2, 3, 4, 4))


def test_a_condition_that_does_not_always_hold_stays():
    causal = relax.const(np.tri(4, dtype=bool)[None, None])
    check(
        lambda emit, keep: op.logical_and(causal, emit(op.reshape(keep, (2, 1, 1, 4)))),
        ["reshape", "logical_and"], MASK,
    )  # fmt: skip


def test_what_is_broadcast_stays_small_only_where_the_result_is_as_large():
    def summed(emit, x):
        wide = emit(op.broadcast_to(x, (2, 3, 4)))
        return op.sum(emit(op.add(wide, relax.const(1.0))), [1])

    check(summed, ["add", "broadcast_to", "sum"], normal(2, 1, 4))


def test_factors_of_both_sides_multiply_the_product_once():
    def scores(emit, q, k):
        sides = [emit(op.multiply(side, SCALE)) for side in (q, k)]
        return op.multiply(emit(op.matmul(*sides)), SCALE)

    check(scores, ["matmul", "multiply"], normal(2, 3, 4), normal(2, 4, 5))


def test_a_factor_before_a_constant_weight_stays():
    """There it is the smaller side."""
    weight = relax.const(normal(4, 50))
    check(
        lambda emit, x: op.matmul(emit(op.multiply(x, SCALE)), weight), ["multiply", "matmul"], normal(3, 4)
    )


def test_constants_come_second_in_a_product():
    check(lambda emit, x: op.multiply(SCALE, x), ["multiply"], X)
    after = simplified(module(lambda emit, x: op.multiply(SCALE, x), X))
    call = after["main"].body.blocks[0].bindings[-1].value
    assert call.args[1].value.numpy() == 0.5


def test_weights_of_a_byte_are_not_decoded():
    codes, scale = RNG.integers(-128, 128, (6, 4)).astype(np.int8), relax.const(normal(4))

    def product(emit, x):
        weight = emit(op.multiply(emit(op.astype(relax.const(codes), "float32")), scale))
        return op.matmul(x, emit(op.permute_dims(emit(op.permute_dims(weight)))))

    before = module(product, normal(3, 6))
    assert tvm_run.operators(DeadCodeElimination()(FoldConstant()(before))) == ["matmul"]
    kept = keeping_narrow(before, lambda module: DeadCodeElimination()(FoldConstant()(module)))
    assert "astype" in tvm_run.operators(kept)
    assert len(kept["main"].params) == 1
    [expected], [found] = (tvm_run.compiled(m, level=0)(normal(3, 6) * 0 + 1) for m in (before, kept))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def convolved(dims, **options):
    """(Relax, PyTorch) of a convolution of one axis or two."""
    name = f"conv{dims}d"
    torch_options = {{"strides": "stride"}.get(key, key): value for key, value in options.items()}

    def build(weight):
        return lambda emit, x: getattr(op.nn, name)(x, relax.const(weight), **options)

    def exact(x, weight):
        tensors = [torch.from_numpy(array).double() for array in (x, weight)]
        return getattr(torch, name)(*tensors, **torch_options).numpy()

    return build, exact


@pytest.mark.parametrize(
    ("dims", "x", "weight", "options", "products"),
    [
        (1, (2, 3, 11), (5, 3, 1), {}, 1),
        (1, (2, 3, 11), (5, 3, 3), {"padding": 1}, 1),
        (1, (2, 3, 12), (5, 3, 3), {"padding": 1, "strides": 2}, 1),
        (1, (2, 3, 11), (5, 3, 4), {"strides": 4}, 1),
        (1, (2, 6, 11), (8, 3, 1), {"groups": 2}, 1),
        (1, (2, 6, 11), (8, 3, 3), {"groups": 2}, 0),
        (1, (2, 3, 11), (5, 3, 3), {"dilation": 2}, 0),
        (2, (2, 3, 12, 8), (5, 3, 4, 4), {"strides": 4}, 1),
        (2, (2, 3, 13, 9), (5, 3, 4, 4), {"strides": 4}, 1),
        (2, (2, 3, 12, 8), (5, 3, 3, 3), {"padding": 1}, 0),
    ],
)
def test_convolutions_are_products_of_windows(dims, x, weight, options, products):
    build, exact = convolved(dims, **options)
    x, weight = normal(*x), normal(*weight)
    after = DeadCodeElimination()(simplified(module(build(weight), x)))
    operators = tvm_run.operators(after)
    assert operators.count("matmul") == products
    assert operators.count(f"nn.conv{dims}d") == 1 - products
    [found] = tvm_run.compiled(after, level=0)(x)
    np.testing.assert_allclose(found, exact(x, weight), rtol=1e-5, atol=1e-5)


def test_channels_stay_last_between_convolutions():
    """Biases, activations and residuals on the way from one product to the next cost no transpose."""
    first, second = relax.const(normal(6, 3, 1)), relax.const(normal(6, 6, 1))
    bias = relax.const(normal(6, 1))

    def layers(emit, x):
        h = emit(op.nn.gelu(emit(op.add(emit(op.nn.conv1d(x, first)), bias))))
        y = emit(op.add(emit(op.nn.conv1d(h, second)), h))
        heads = emit(op.permute_dims(emit(op.reshape(y, (2, 3, 2, 11))), [0, 1, 3, 2]))
        return op.multiply(heads, relax.const(2.0))

    left = [
        "permute_dims",
        "matmul",
        "add",
        "nn.gelu",
        "matmul",
        "add",
        "reshape",
        "permute_dims",
        "multiply",
    ]
    check(layers, left, normal(2, 3, 11))


def test_a_bias_of_an_image_is_added_to_its_patches():
    weight, bias = relax.const(normal(5, 3, 4, 4)), relax.const(normal(5, 1, 1))

    def embedding(emit, x):
        y = emit(op.add(emit(op.nn.conv2d(x, weight, strides=4)), bias))
        return op.permute_dims(emit(op.reshape(y, (2, 5, 6))), [0, 2, 1])

    left = ["reshape", "permute_dims", "reshape", "matmul", "add"]
    check(embedding, left, normal(2, 3, 12, 8))


def test_heads_merged_to_channels_are_merged_last():
    def merged(emit, x):
        heads = emit(op.reshape(emit(op.permute_dims(x, [0, 1, 3, 2])), (2, 15, 4)))
        return op.permute_dims(heads, [0, 2, 1])

    check(merged, ["permute_dims", "reshape"], normal(2, 3, 4, 5))

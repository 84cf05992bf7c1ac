"""What the rewrite runs, against integer arithmetic in NumPy: the kernels, the sharing, the spellings."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.quantize.int8.rewrite import Int8Writer
from graphwright.passes.quantize.int8.sites import find
from graphwright.passes.quantize.int8.weights import FULL, REDUCED, quantize
from handmade import golden, operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_emulation import dynamic_product

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def written(program, rung="tensor", limit=REDUCED):
    """The program with every site at one rung, and why some are not sites."""
    after = program.clone()
    sites, misses = find(after, limit)
    writer = Int8Writer(after.graph, limit)
    for site in sites:
        writer.write(site, rung)
    writer.finish()
    return after, misses


def outcome(program, **feed):
    return execute(program, [feed])[0]["y"]


SPELLINGS = {
    "matmul": ("y = MatMul (x, w)", {}, False),
    "matmul and add": ("t = MatMul (x, w) y = Add (b, t)", {"b": (24,)}, False),
    "wide bias": ("t = MatMul (x, w) y = Add (t, b)", {"b": (1, 1, 24)}, False),
    "transposed": ("v = Transpose <perm = [1, 0]> (w) y = MatMul (x, v)", {}, True),
}


@pytest.mark.parametrize("limit", [FULL, REDUCED])
@pytest.mark.parametrize("rung", ["tensor", "token"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_product_is_the_integer_product(spelling, rung, limit):
    body, biases, transposed = SPELLINGS[spelling]
    weight = normal(40, 24)
    weights = {name: normal(*shape) for name, shape in biases.items()}
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    program = parsed(body, "float[batch,length,40] x", "float[batch,length,24] y", {"w": stored, **weights})
    after, misses = written(program, rung, limit)
    assert not misses
    assert "MatMul" not in operators(after)
    x = normal(2, 7, 40) * np.exp(normal(2, 7, 1))
    found = outcome(after, x=x)
    rows = dynamic_product(x.reshape(14, 40), *quantize(weight, limit, "w"), per_token=rung == "token")
    expected = rows.reshape(2, 7, 24) + sum(b.reshape(-1) for b in weights.values())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


GEMMS = {
    "bias": ("y = Gemm (x, w, b)", (24,), False),
    "row": ("y = Gemm (x, w, b)", (1, 24), False),
    "number": ("y = Gemm (x, w, b)", (), False),
    "transposed": ("y = Gemm <transB = 1> (x, w, b)", (24,), True),
}


@pytest.mark.parametrize("rung", ["tensor", "token"])
@pytest.mark.parametrize("spelling", GEMMS)
def test_gemm_with_every_bias_it_may_have(spelling, rung):
    body, bias, transposed = GEMMS[spelling]
    weight, b = normal(40, 24), normal(*bias) if bias else np.float32(0.7)
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    program = parsed(body, "float[batch,40] x", "float[batch,24] y", {"w": stored, "b": b})
    after, _ = written(program, rung)
    assert "MatMulIntegerToFloat" in operators(after)
    x = normal(9, 40)
    expected = dynamic_product(x, *quantize(weight, REDUCED, "w"), per_token=rung == "token") + b
    found = outcome(after, x=x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@given(rows=st.integers(1, 9), depth=st.integers(16, 70), width=st.integers(16, 70), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_every_shape(rows, depth, width, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((depth, width)).astype(np.float32)
    x = (rng.standard_normal((rows, depth)) + rng.standard_normal()).astype(np.float32)
    program = parsed("y = MatMul (x, w)", f"float[batch,{depth}] x", f"float[batch,{width}] y", {"w": weight})
    expected = dynamic_product(x, *quantize(weight, REDUCED, "w"))
    found = outcome(written(program)[0], x=x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", [13, 18])
def test_rows_of_zeros_stay_zero_per_token(opset):
    program = parsed(
        "y = MatMul (x, w)", "float[batch,40] x", "float[batch,24] y", {"w": normal(40, 24)}, opset=opset
    )
    after, _ = written(program, "token")
    x = normal(3, 40)
    x[1] = 0
    found = outcome(after, x=x)
    assert np.isfinite(found).all()
    assert not found[1].any()
    assert not outcome(after, x=np.zeros((2, 40), np.float32)).any()


def test_a_scale_per_token_shields_rows_from_a_loud_one():
    weight = normal(64, 32)
    program = parsed("y = MatMul (x, w)", "float[batch,64] x", "float[batch,32] y", {"w": weight})
    x = normal(8, 64)
    x[0] *= 100
    errors = {}
    for rung in ("tensor", "token"):
        found = outcome(written(program, rung, FULL)[0], x=x)
        errors[rung] = np.abs(found - x @ weight)[1:].max()
    assert errors["token"] < errors["tensor"] / 20


ELSEWHERE = {
    "BiasGelu": ("t = MatMul (x, w) y = com.microsoft.BiasGelu (t, b)", ["Gelu"]),
    "SkipLayerNormalization": (
        "t = MatMul (x, w) y = com.microsoft.SkipLayerNormalization (s, t, g, b, b)",
        ["SkipLayerNormalization"],
    ),
    # Not the product's own: read twice, of another width, added to something else first.
    "read twice": ("t = MatMul (x, w) z = com.microsoft.BiasGelu (t, b) y = Add (t, z)", ["BiasGelu", "Add"]),
    "past the stream": ("t = MatMul (x, w) u = Add (s, t) y = Add (b, u)", ["Add", "Add"]),
    "a number": ("t = MatMul (x, w) u = Add (s, t) y = Add (u, c)", ["Add", "Add"]),
    "scaled before": ("t = MatMul (x, w) u = Mul (s, t) y = Add (u, b)", ["Mul", "Add"]),
}


@pytest.mark.parametrize("rung", ["tensor", "token"])
@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_bias_that_a_fusion_took_comes_back_into_the_product(case, rung):
    body, left = ELSEWHERE[case]
    weights = {"w": normal(40, 24), "b": normal(24), "g": normal(24), "c": normal(1)}
    inputs = "float[batch,length,40] x, float[batch,length,24] s"
    program = parsed(body, inputs, "float[batch,length,24] y", weights)
    after, _ = written(program, rung)
    if rung == "tensor":
        assert operators(after)[2:] == left
        product = next(node for node in after.graph.graph if node.op_type == "MatMulIntegerToFloat")
        assert (product.inputs[6] is not None) == (len(left) == 1)
    feed = {"x": normal(2, 7, 40), "s": normal(2, 7, 24)}
    feed = {spec.name: feed[spec.name] for spec in program.inputs}
    expected = outcome(program, **feed)
    np.testing.assert_allclose(outcome(after, **feed), expected, rtol=0, atol=0.03 * np.abs(expected).max())


QKV = (
    "a = MatMul (x, w) q = Add (a, b) k = MatMul (x, u) v = MatMul (x, w) s = Add (q, k) y = Add (s, v)",
    "float[batch,length,32] x",
    "float[batch,length,32] y",
)


@pytest.mark.parametrize("rung", ["tensor", "token"])
def test_products_of_one_activation_share_its_integers_and_products_of_one_weight_its(rung):
    program = parsed(*QKV, {"w": normal(32, 32), "u": normal(32, 32), "b": normal(32)})
    after, _ = written(program, rung)
    names = operators(after)
    assert names.count("DynamicQuantizeLinear" if rung == "tensor" else "QuantizeLinear") == 1
    assert names.count("MatMulIntegerToFloat") == 3
    kept = {name: value.dtype.name for name, value in after.graph.graph.initializers.items()}
    assert [name for name, dtype in kept.items() if dtype == "INT8"] == ["w.int8", "u.int8"]
    assert {"w", "u"}.isdisjoint(kept)
    x = normal(2, 5, 32)
    expected = outcome(program, x=x)
    np.testing.assert_allclose(outcome(after, x=x), expected, rtol=0, atol=0.04 * np.abs(expected).max())


@pytest.mark.parametrize("rung", ["tensor", "token"])
def test_the_text_after(rung):
    from graphwright.ir.text import text

    weights = {
        name: np.ones(shape, np.float32) for name, shape in {"w": (32, 32), "u": (32, 32), "b": (32,)}.items()
    }
    golden(f"quantize/quantize-dynamic-{rung}", text(written(parsed(*QKV, weights), rung)[0]))


def test_a_tied_table_stays_float_where_it_is_looked_up():
    program = parsed(
        "x = Gather (w, ids) v = Transpose <perm = [1, 0]> (w) y = MatMul (x, v)",
        "int64[batch,length] ids",
        "float[batch,length,50] y",
        {"w": normal(50, 32)},
        high=50,
    )
    after, _ = written(program)
    assert operators(after) == ["Gather", "DynamicQuantizeLinear", "MatMulIntegerToFloat"]
    assert set(after.graph.graph.initializers) == {"w", "w.int8", "w.scale"}
    ids = RNG.integers(0, 50, (2, 6))
    expected = outcome(program, ids=ids)
    np.testing.assert_allclose(outcome(after, ids=ids), expected, rtol=0, atol=0.04 * np.abs(expected).max())


@pytest.mark.parametrize("inputs", ["b, mask", "b"])
def test_attention_becomes_qattention(inputs):
    weight, bias = normal(32, 96) / 4, normal(96)
    program = parsed(
        f"y = com.microsoft.Attention <num_heads = 4> (x, w, {inputs})",
        "float[batch,length,32] x, int32[batch,length] mask",
        "float[batch,length,32] y",
        {"w": weight, "b": bias},
    )
    after, misses = written(program)
    assert not misses
    assert operators(after) == ["DynamicQuantizeLinear", "QAttention"]
    x, mask = normal(2, 5, 32), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    projected = dynamic_product(x.reshape(10, 32), *quantize(weight, REDUCED, "w")) + bias
    q, k, v = projected.reshape(2, 5, 3, 4, 8).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(8)
    if "mask" in inputs:
        scores = scores - 1e4 * (1 - mask[:, None, None])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    expected = context.transpose(0, 2, 1, 3).reshape(2, 5, 32)
    np.testing.assert_allclose(outcome(after, x=x, mask=mask), expected, rtol=0, atol=1e-4)


def test_attention_that_qattention_cannot_be_stays_with_its_reason():
    program = parsed(
        'y = com.microsoft.Attention <num_heads = 4> (x, w, b, "", "", bias)',
        "float[batch,length,32] x, float[1,4,length,length] bias",
        "float[batch,length,32] y",
        {"w": normal(32, 96), "b": normal(96)},
    )
    after, misses = written(program)
    assert operators(after) == ["Attention"]
    assert misses == ["y: stays in float, QAttention does not take its attention_bias"]

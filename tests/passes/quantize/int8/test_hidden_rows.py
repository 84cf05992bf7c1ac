"""Queries that may look at nothing: NaN in float, in their own rows alone, and so it must stay."""

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.int8.hidden_rows import nan_sources
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.passes.quantize.quantize_static import QuantizeStatic
from handmade import golden, operators, parsed

INPUTS = "float[batch,length,32] x, int64[batch,length] mask"
KEEP = "axis = Constant <value_ints = [1]> () keep = Cast <to = 9> (mask) row = Unsqueeze (keep, axis) "
SCORES = "k = Transpose <perm = [0, 2, 1]> (x) scores = MatMul (x, k) seen = Where (row, scores, hidden) "
WRITTEN_OUT = (
    "last = Constant <value_ints = [-1]> () top = ReduceMax (seen, last) less = Sub (seen, top) "
    "e = Exp (less) total = ReduceSum (e, last) p = Div (e, total) "
)
OUT = "c = MatMul (p, v) o = MatMul (c, w2) s = Add (x, o) y = MatMul (s, w3)"


KERNELS = {
    "Attention <q_num_heads = 4, kv_num_heads = 4> (x, x, v, mask4)": 0,
    'com.microsoft.MultiHeadAttention <num_heads = 4> (x, x, v, "", "", mask4)': 1,
}


def attention(softmax="p = Softmax (seen) ", hidden=-np.inf, out=OUT, opset=18):
    """One head over x, whose keys a mask hides; three products, of which o alone meets hidden rows."""
    rng = np.random.default_rng(3)
    weights = {f"w{n}": rng.standard_normal((32, 32)).astype(np.float32) / 6 for n in (1, 2, 3)}
    return parsed(
        "v = MatMul (x, w1) " + KEEP + SCORES + softmax + out,
        INPUTS,
        "float[batch,length,32] y",
        {**weights, "hidden": np.float32(hidden), "zero": np.float32(0)},
        opset=opset,
    )


def quantized(program):
    context = Context(target=named("x86-64-avx2"))
    return QuantizeDynamic(min_cosine=0.0, scale="tensor").run(program.clone(), context)


def feed():
    """Two rows of tokens; nothing of the second may be looked at."""
    x = np.random.default_rng(4).standard_normal((2, 5, 32)).astype(np.float32)
    return {"x": x, "mask": np.array([[1, 1, 1, 1, 0], [0] * 5])}


@pytest.mark.parametrize("softmax", ["p = Softmax (seen) ", WRITTEN_OUT])
def test_what_is_nan_in_one_row_stays_there(softmax):
    program = attention(softmax)
    expected = execute(program, [feed()])[0]["y"]
    assert np.isnan(expected[1]).all()
    result = quantized(program)
    assert result.statistics["products in int8"] == 3
    assert result.statistics["guarded against NaN rows"] == 1
    found = execute(result.program, [feed()])[0]["y"]
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.03 * np.abs(expected[0]).max())


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_that_give_nan_are_guarded_and_those_that_give_zero_are_not(kernel):
    softmax = f"mask4 = Unsqueeze (seen, axis) c = {kernel} "
    program = attention(softmax, out=OUT.removeprefix("c = MatMul (p, v) "), opset=23)
    expected = execute(program, [feed()])[0]["y"]
    assert np.isnan(expected[1]).any() == KERNELS[kernel]
    result = quantized(program)
    assert result.statistics.get("guarded against NaN rows", 0) == KERNELS[kernel]
    found = execute(result.program, [feed()])[0]["y"]
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.03 * np.abs(expected[0]).max())


def test_without_the_guard_it_would_be_everywhere(monkeypatch):
    monkeypatch.setattr("graphwright.passes.quantize.int8.insert.nan_sources", lambda *_: frozenset())
    found = execute(quantized(attention()).program, [feed()])[0]["y"]
    expected = execute(attention(), [feed()])[0]["y"]
    assert not np.allclose(found[0], expected[0], rtol=0, atol=0.03 * np.abs(expected[0]).max())


@pytest.mark.parametrize("form", ["qdq", "kernels"])
def test_a_calibrated_scale_needs_no_guard(form):
    """NaN is left out of the range, and turns into some integer of its own row."""
    program = attention()
    context = Context(target=named("x86-64-avx2"), calibration=[feed()])
    result = QuantizeStatic(min_cosine=0.0, ranges="min-max", form=form).run(program.clone(), context)
    assert result.statistics["products in int8"] == 3
    assert "guarded against NaN rows" not in result.statistics
    assert "IsNaN" not in operators(result.program)
    expected, found = (execute(p, [feed()])[0]["y"] for p in (program, result.program))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.03 * np.abs(expected[0]).max())
    assert np.isfinite(found).all()


def test_a_scale_of_its_own_row_needs_no_guard():
    program = attention()
    result = QuantizeDynamic(min_cosine=0.0).run(program.clone(), Context(target=named("x86-64-avx2")))
    assert result.statistics["with a scale per token"] == 3
    assert "IsNaN" not in operators(result.program)
    expected, found = (execute(p, [feed()])[0]["y"] for p in (program, result.program))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.02 * np.abs(expected[0]).max())


def test_the_text_before_and_after():
    program = attention()
    after = quantized(program).program
    golden("quantize/quantize-dynamic-hidden-rows", f"# before\n{text(program)}\n# after\n{text(after)}")


UNGUARDED = {
    "a large finite number hides": {"hidden": -1e4},
    "the model reads NaN as zero itself": {
        "softmax": "q = Softmax (seen) bad = IsNaN (q) p = Where (bad, zero, q) "
    },
    "nothing but sizes is taken from it": {
        "out": "c = MatMul (p, v) n = Shape (c) r = Reshape (v, n) o = MatMul (r, w2) "
        "s = Add (x, o) y = MatMul (s, w3)"
    },
}


@pytest.mark.parametrize("case", UNGUARDED)
def test_no_guard_where_no_nan_arrives(case):
    result = quantized(attention(**UNGUARDED[case]))
    assert "guarded against NaN rows" not in result.statistics
    assert "IsNaN" not in operators(result.program) or case.startswith("the model")


def test_a_float_product_between_hands_it_on():
    """x @ x is no product with a weight: what comes through it meets int8 later."""
    out = (
        "c = MatMul (p, v) t = Transpose <perm = [0, 2, 1]> (c) z = MatMul (c, t) o = MatMul (z, c) "
        "s = Add (x, o) y = MatMul (s, w3)"
    )
    program = attention(out=out)
    result = quantized(program)
    assert result.statistics["guarded against NaN rows"] == 1
    expected, found = (execute(p, [feed()])[0]["y"][0] for p in (program, result.program))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * np.abs(expected).max())


def test_a_model_without_a_mask_is_not_run_to_see():
    program = parsed("y = Softmax (x)", "float[batch,length] x", "float[batch,length] y")
    assert nan_sources(program, Context()) == frozenset()

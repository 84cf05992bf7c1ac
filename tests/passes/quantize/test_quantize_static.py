"""quantize-static's contract: what it writes, what ONNX Runtime makes of it, what it says and leaves."""

from collections import Counter

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.errors import DataError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.onnx.kernels import INTEGER, kernels
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.calibrate.ranges import KINDS
from graphwright.passes.quantize.int8 import placement
from graphwright.passes.quantize.int8.weights import REDUCED, quantize
from graphwright.passes.quantize.quantize_static import QuantizeStatic
from handmade import golden, operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

VNNI, AVX2 = named("x86-64-vnni"), named("x86-64-avx2")
RNG = np.random.default_rng(0)
FORMS = ("qdq", "kernels")


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def feeds(*shape, count=3, scale=1.0, name="x"):
    return [{name: normal(*shape) * np.float32(scale)} for _ in range(count)]


def run(program, calibration, target=AVX2, **options):
    context = Context(target=target, calibration=calibration)
    return QuantizeStatic(**{"min_cosine": 0.0, **options}).run(program.clone(), context)


def feed_forward():
    body = "h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)"
    weights = {"up": normal(32, 64), "down": normal(64, 32)}
    return parsed(body, "float[batch,length,32] x", "float[batch,length,32] y", weights)


def product(x, low, high, weight, limit, symmetric=False):
    """x W by Jacob et al. 2018, equations 1 to 4, in float64: integers, their exact sum, one rescaling."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        scale, zero = max(-low, high) / 127, 128
    else:
        scale = (high - low) / 255
        zero = round(-low / scale)
    scale = np.float32(scale)  # as QuantizeLinear divides
    integers = np.clip(np.rint(x / scale).astype(np.float64) + zero, 0, 255)
    w, steps = quantize(weight, limit, "w")
    return ((integers - zero) @ w.astype(np.float64)) * float(scale) * steps.astype(np.float64)


SPELLINGS = {
    "matmul": ("y = MatMul (x, w)", "batch,length", {}, False),
    "bias": ("t = MatMul (x, w) y = Add (b, t)", "batch,length", {"b": (24,)}, False),
    "wide bias": ("t = MatMul (x, w) y = Add (t, b)", "batch,length", {"b": (1, 1, 24)}, False),
    "transposed": ("v = Transpose <perm = [1, 0]> (w) y = MatMul (x, v)", "batch,length", {}, True),
    "fixed sizes": ("t = MatMul (x, w) y = Add (t, b)", "2,7", {"b": (24,)}, False),
    "two axes": ("t = MatMul (x, w) y = Add (t, b)", "rows", {"b": (24,)}, False),
    "gemm": ("y = Gemm <transB = 1> (x, w, b)", "rows", {"b": (24,)}, True),
    "gemm, bias in a row": ("y = Gemm (x, w, b)", "rows", {"b": (1, 24)}, False),
    "gemm, a number": ("y = Gemm (x, w, b)", "rows", {"b": (1,)}, False),
    "gemm alone": ("y = Gemm (x, w)", "rows", {}, False),
    "residual of two axes": (
        "t = MatMul (x, w) u = Slice (x, zero, n, one) y = Add (t, u)",
        "rows",
        {},
        False,
    ),
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_product_is_the_integer_product(spelling, form, symmetric):
    body, axes, biases, transposed = SPELLINGS[spelling]
    weight = normal(40, 24)
    constants = {name: normal(*shape) for name, shape in biases.items()}
    if "Slice" in body:
        constants |= {"zero": np.array([0]), "n": np.array([24]), "one": np.array([1])}
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    shape = (9,) if axes == "rows" else (2, 7)
    program = parsed(body, f"float[{axes},40] x", f"float[{axes},24] y", {"w": stored, **constants})
    data = feeds(*shape, 40)
    result = run(program, data, form=form, ranges="min-max", symmetric=symmetric)
    assert result.statistics["products in int8"] == 1
    made = [kernel.op_type for kernel in kernels(result.program.graph)]
    assert sum(name in INTEGER for name in made) == 1
    assert not {"DequantizeLinear", "MatMul", "Gemm"} & set(made)
    low, high = min(one["x"].min() for one in data), max(one["x"].max() for one in data)
    x = normal(*shape, 40) * 1.5  # some of it is clipped
    rows = product(x.reshape(-1, 40), float(low), float(high), weight, REDUCED, symmetric)
    expected = rows.reshape(*shape, 24) + sum(b.reshape(-1) for n, b in constants.items() if n == "b")
    if "Slice" in body:
        expected = expected + x[..., :24]
    found = execute(result.program, [{"x": x}])[0]["y"]
    # A bias in int32 steps is off by half a step at most.
    step = (
        result.program.graph.graph.initializers["x.scale"].const_value.numpy()
        * quantize(weight, 64, "")[1].max()
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max() + step / 2)


@given(
    rows=st.integers(1, 9),
    depth=st.integers(16, 70),
    width=st.integers(16, 70),
    shift=st.floats(-3, 3),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_every_shape_and_range(rows, depth, width, shift, form, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((depth, width)).astype(np.float32)
    x = (rng.standard_normal((rows, depth)) + shift).astype(np.float32)
    program = parsed("y = MatMul (x, w)", f"float[batch,{depth}] x", f"float[batch,{width}] y", {"w": weight})
    result = run(program, [{"x": x}], form=form, ranges="min-max")
    expected = product(x, x.min(), x.max(), weight, REDUCED)
    found = execute(result.program, [{"x": x}])[0]["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


QKV = (
    "a = MatMul (x, w) q = Add (a, b) k = MatMul (x, u) v = MatMul (x, w) s = Add (q, k) y = Add (s, v)",
    "float[batch,length,32] x",
    "float[batch,length,32] y",
)


@pytest.mark.parametrize("form", FORMS)
def test_products_of_one_activation_share_its_integers_and_products_of_one_weight_its(form):
    program = parsed(*QKV, {"w": normal(32, 32), "u": normal(32, 32), "b": normal(32)})
    data = feeds(2, 5, 32)
    after = run(program, data, form=form).program
    assert operators(after).count("QuantizeLinear") == 1
    kept = {name: value.dtype.name for name, value in after.graph.graph.initializers.items()}
    assert [name for name, dtype in kept.items() if dtype == "INT8" and "zeros" not in name] == [
        "w.int8",
        "u.int8",
    ]
    assert {"w", "u"}.isdisjoint(kept)
    made = Counter(kernel.op_type for kernel in kernels(after.graph))
    assert made["MatMulIntegerToFloat"] == 3
    expected, found = (execute(p, data)[0]["y"] for p in (program, after))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.04 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_the_text_after(form):
    weights = {"w": np.ones((32, 32)), "u": np.ones((32, 32)), "b": np.ones(32)}
    program = parsed(*QKV, {name: array.astype(np.float32) for name, array in weights.items()})
    ramp = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 2, 32)
    after = run(program, [{"x": ramp}], form=form, ranges="min-max").program
    golden(f"quantize/quantize-static-{form}", text(after))


def test_sizes_fixed_later_leave_the_integer_kernels():
    """Sizes known, ONNX Runtime makes a float Gemm of MatMul and Add before it looks for integers."""
    weights = {"w": normal(32, 24), "b": normal(24)}
    program = parsed("t = MatMul (x, w) y = Add (t, b)", *QKV[1:2], "float[batch,length,24] y", weights)
    context = Context(target=AVX2, calibration=feeds(2, 5, 32))
    text_ = "quantize-static{form=qdq},specialise-shapes{batch=2,length=5}"
    done = Pipeline.parse(text_).run(program, context)
    assert done.ok
    made = [kernel.op_type for kernel in kernels(done.program.graph)]
    assert made == ["QuantizeLinear", "MatMulIntegerToFloat", "Sum"]


def test_both_forms_compute_the_same():
    program, data = feed_forward(), feeds(2, 5, 32)
    found = [execute(run(program, data, form=form).program, data)[0]["y"] for form in FORMS]
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-4 * np.abs(found[0]).max())


def test_a_bias_past_32_bits_is_added_apart():
    weights = {"w": normal(32, 24), "b": normal(24) * np.float32(1e9)}
    program = parsed("t = MatMul (x, w) y = Add (t, b)", "float[rows,32] x", "float[rows,24] y", weights)
    data = feeds(5, 32)
    after = run(program, data, form="qdq").program
    assert operators(after)[-2:] == ["MatMul", "Sum"]
    assert "MatMulIntegerToFloat" in [kernel.op_type for kernel in kernels(after.graph)]
    expected, found = (execute(p, data)[0]["y"] for p in (program, after))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


def test_attention_becomes_qattention():
    program = parsed(
        "y = com.microsoft.Attention <num_heads = 4> (x, w, b, mask)",
        "float[batch,length,32] x, int32[batch,length] mask",
        "float[batch,length,32] y",
        {"w": normal(32, 96) / 4, "b": normal(96)},
    )
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    data = [{"x": normal(2, 5, 32), "mask": mask} for _ in range(3)]
    after = run(program, data).program
    assert operators(after) == ["QuantizeLinear", "QAttention"]
    expected, found = (execute(p, data)[0]["y"] for p in (program, after))
    real = mask != 0
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=0.03 * np.abs(expected).max())


def test_a_pair_that_does_not_fuse_is_not_kept(monkeypatch):
    """ONNX Runtime is made to leave `up` in float; what it would run is named."""

    def without_up(model):
        for kernel in kernels(model):
            op_type = "MatMul" if "up.int8" in kernel.inputs else kernel.op_type
            yield type(kernel)(op_type, kernel.domain, kernel.name, kernel.inputs, kernel.outputs)

    monkeypatch.setattr(placement, "kernels", without_up)
    program = feed_forward()
    result = run(program, feeds(2, 5, 32), form="qdq")
    assert result.statistics["products in int8"] == 1
    assert result.statistics["left in float"] == 1
    assert operators(result.program).count("QuantizeLinear") == 1
    assert "up" in result.program.graph.graph.initializers
    reason = "ONNX Runtime does not fuse its QuantizeLinear: MatMul would run"
    assert f"h: stays in float, {reason}" in result.notes


OUTLIERS = np.float32([30] + [0] * 31)


@pytest.mark.parametrize("form", FORMS)
def test_layers_that_lose_too_much_climb(form):
    """One loud row sets everyone's scale: a scale of its own for each row, or float, is the way out."""
    program, data = feed_forward(), feeds(2, 9, 32)
    for one in data:
        one["x"][0, 0] *= 300
    cosines, products = [], []
    for floor in (0.0, 0.99, 0.9999, 1.0):
        result = run(program, data, VNNI, ranges="min-max", min_cosine=floor, form=form)
        a, b = (execute(p, data)[0]["y"].astype(np.float64) for p in (program, result.program))
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = ((a * b).sum(-1) / np.maximum(norms, 1e-30)).mean()
        cosines.append(cosine)
        products.append((result.statistics["products in int8"], result.statistics["with a scale per token"]))
        if floor:
            assert cosine >= floor - 1e-4  # what is asked for holds over all feeds, this is the first
    assert cosines[0] < 0.9
    assert products[0] == (2, 0)
    assert products[1][1] > 0
    assert products[-1] == (0, 0)
    assert len([note for note in result.notes if "int8 there alone costs" in note]) == 2


@pytest.mark.parametrize("ranges", KINDS)
def test_every_kind_of_range(ranges):
    program, data = feed_forward(), feeds(2, 50, 32)
    after = run(program, data, VNNI, ranges=ranges).program
    expected, found = (execute(p, data)[0]["y"] for p in (program, after))
    assert (
        np.sqrt(((found - expected) ** 2).mean()) < (0.15 if ranges == "entropy" else 0.04) * expected.std()
    )
    scale = after.graph.graph.initializers["x.scale"].const_value.numpy()
    most = max(np.abs(one["x"]).max() for one in data)
    assert 0.5 * most / 128 < scale <= 1.001 * 2 * most / 255


def test_padding_does_not_widen_a_range():
    body = "x = Gather (t, ids) y = MatMul (x, w)"
    table = normal(8, 32)
    table[0] = 1000  # the padding's row
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    weights = {"t": table, "w": normal(32, 24)}
    program = parsed(body + " m = Cast <to = 1> (mask)", inputs, "float y, float m", weights)
    data = [{"ids": np.array([[1, 2, 0], [3, 4, 5]]), "mask": np.array([[1, 1, 0], [1, 1, 1]])}]
    after = run(program, data, ranges="min-max").program
    scale = after.graph.graph.initializers["x.scale"].const_value.numpy()
    seen = table[1:6]
    assert scale == pytest.approx((seen.max() - seen.min()) / 255, rel=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_is_exact(symmetric):
    program = parsed("y = MatMul (x, w)", "float[rows,32] x", "float[rows,24] y", {"w": normal(32, 24)})
    data = [{"x": normal(50, 32) + 2} for _ in range(2)]
    after = run(program, data, symmetric=symmetric).program
    assert not execute(after, [{"x": np.zeros((2, 32), np.float32)}])[0]["y"].any()
    zero = after.graph.graph.initializers["x.zero_point"].const_value.numpy()
    assert (zero == 128) == symmetric


def test_one_scale_for_a_weight_is_that_of_its_largest():
    program, data = feed_forward(), feeds(2, 5, 32)
    up = program.graph.graph.initializers["up"].const_value.numpy()
    for per_channel in (True, False):
        after = run(program, data, VNNI, per_channel=per_channel).program.graph.graph.initializers
        scales = after["up.scale"].const_value.numpy()
        expected = np.abs(up).max(axis=0 if per_channel else None) / 127
        np.testing.assert_allclose(scales, np.broadcast_to(expected, (64,)), rtol=1e-6)
        integers = after["up.int8"].const_value.numpy().astype(np.float64)
        assert (np.abs(integers * scales - up) <= scales * 0.5001).all()


def test_two_runs_give_one_text_and_the_input_is_untouched():
    program, data = feed_forward(), feeds(2, 5, 32)
    before = program.fingerprint()
    first, second = (run(program, data, min_cosine=0.9999) for _ in range(2))
    assert text(first.program) == text(second.program)
    assert first.program.fingerprint() == second.program.fingerprint() != before
    assert program.fingerprint() == before


@pytest.mark.parametrize("form", FORMS)
def test_every_prefix_of_the_rewrites_is_a_program(form):
    program, data = feed_forward(), feeds(2, 5, 32)
    for allowed in range(3):
        answers = iter([True] * allowed + [False] * 2)
        context = Context(target=VNNI, calibration=data, allow=lambda name, a=answers: next(a))
        result = QuantizeStatic(min_cosine=0.0, form=form).run(program.clone(), context)
        assert operators(result.program).count("QuantizeLinear") == allowed
        assert result.modified == bool(allowed)
        execute(result.program, data)


def test_the_manager_runs_it_by_name_and_a_second_time_it_says_why_not():
    data = feeds(2, 5, 32)
    context = Context(target=VNNI, calibration=data)
    once = Pipeline.parse("quantize-static{ranges=percentile,share=0.999}").run(feed_forward(), context)
    assert [step.status for step in once.steps] == ["applied"]
    assert once.steps[0].bytes_after < 0.3 * once.steps[0].bytes_before
    for again in ("quantize-static", "quantize-dynamic"):
        twice = Pipeline.parse(again).run(once.program, context)
        assert twice.steps[0].status == "no change"
        assert twice.steps[0].notes[0].startswith("the model is quantized already: it has ")


def test_bad_data_leaves_the_program_as_it_was():
    program = feed_forward()
    with pytest.raises(PipelineError, match="'quantize-static' needs calibration data"):
        Pipeline.parse("quantize-static").run(program, Context(target=VNNI))
    constant = [{"x": np.ones((2, 5, 32), np.float32)}]
    done = Pipeline.parse("quantize-static").run(program, Context(target=VNNI, calibration=constant))
    assert [step.status for step in done.steps] == ["refused"]
    assert isinstance(done.steps[0].error, DataError)
    assert "constant" in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_options_are_checked():
    for option in ("min_cosine=1.5", "ranges=guess", "share=0.0", "share=1.1", "form=int4", "weights=4"):
        with pytest.raises(PipelineError, match="quantize-static"):
            Pipeline.parse(f"quantize-static{{{option}}}")


def test_an_opset_without_the_operator():
    program = parsed(
        "y = MatMul (x, w)", "float[batch,32] x", "float[batch,32] y", {"w": normal(32, 32)}, opset=12
    )
    result = run(program, feeds(3, 32))
    assert not result.modified
    assert result.notes == ("opset 12 has no DequantizeLinear per axis: convert the model to 13 or later",)


def test_nothing_to_quantize():
    result = run(parsed("y = Relu (x)"), feeds(2, 5))
    assert not result.modified
    assert result.notes == ("no linear layer to quantize",)


def test_a_weight_of_zeros_comes_out_as_its_bias():
    program = parsed(
        "h = MatMul (x, w) y = Add (h, b)",
        "float[rows,32] x",
        "float[rows,24] y",
        {"w": np.zeros((32, 24), np.float32), "b": np.full(24, 0.25, np.float32)},
    )
    for form in FORMS:
        after = run(program, feeds(3, 32), form=form).program
        np.testing.assert_allclose(execute(after, feeds(3, 32))[0]["y"], 0.25, rtol=0, atol=1e-4)


def test_the_weights_follow_the_target():
    for target, bits in ((VNNI, 8), (AVX2, 7)):
        result = run(feed_forward(), feeds(2, 5, 32), target)
        assert result.statistics["weight bits"] == bits
        integers = result.program.graph.graph.initializers["up.int8"].const_value.numpy()
        assert np.abs(integers.astype(int)).max() == {8: 127, 7: 64}[bits]
        assert result.notes[0].startswith(f"{bits}-bit weights")

"""fuse-layer-norm and fuse-skip-layer-norm: norms in any spelling, with and without the sum before them."""

import numpy as np
import pytest
from fusing import fused, weights
from graphwright.ir.execute import execute
from graphwright.passes.fuse.fuse_layer_norm import FuseLayerNorm
from graphwright.passes.fuse.fuse_skip_layer_norm import FuseSkipLayerNorm
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed

F32 = np.float32
TOLERANCE = 2e-6  # float32 rounding of normalised values
EPSILON = 1e-3  # large, so that losing it shows
CONSTANTS = {
    "two": F32(2), "half": F32(0.5), "epsilon": F32(EPSILON), "one": F32(1), "wrong_axis": np.array([1]),
    "last": np.array([-1]), **weights(w=(8,), b=(8,), bias=(8,), row=(1, 5, 8)),
}  # fmt: skip


def program(body, inputs="float[batch,length,8] x", outputs="float[batch,length,8] y", opset=18):
    return parsed(body, inputs, outputs, CONSTANTS, opset=opset)


CENTRED = "m = ReduceMean<keepdims = 1>(x, last) d = Sub(x, m)"
LAYER = {
    "pow, sqrt, div": f"{CENTRED} s = Pow(d, two) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) "
    "r = Sqrt(e) n = Div(d, r) g = Mul(n, w) y = Add(g, b)",
    "product, reciprocal": f"{CENTRED} s = Mul(d, d) v = ReduceMean<keepdims = 1>(s, last) "
    "e = Add(epsilon, v) r = Sqrt(e) i = Reciprocal(r) n = Mul(i, d) g = Mul(w, n) y = Add(b, g)",
}
RMS = {
    "pow, sqrt, reciprocal": "s = Pow(x, two) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) "
    "r = Sqrt(e) i = Reciprocal(r) n = Mul(x, i) y = Mul(w, n)",
    "product, div": "s = Mul(x, x) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, epsilon) r = Sqrt(e) "
    "n = Div(x, r) y = Mul(n, w)",
}


def layer_norm(x, shift=True):
    """Ba et al., 2016, arXiv:1607.06450, equations 3 and 4, in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return normal * CONSTANTS["w"] + (CONSTANTS["b"] if shift else 0)


def rms_norm(x):
    """Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4, in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * CONSTANTS["w"]


def held(result, formula):
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(F32) * 0.1
    (found,) = execute(result.program, [{"x": x}])
    np.testing.assert_allclose(found["y"], formula(x), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("spelling", LAYER)
def test_layer_norm(spelling):
    result = fused(FuseLayerNorm(), program(LAYER[spelling]), TOLERANCE)
    assert operators(result.program) == ["LayerNormalization"]
    assert result.statistics["norms fused"] == "1 of 1"
    held(result, layer_norm)


@pytest.mark.parametrize("spelling", RMS)
def test_rms_norm_raises_the_opset(spelling):
    result = fused(FuseLayerNorm(), program(RMS[spelling]), TOLERANCE)
    assert operators(result.program) == ["RMSNormalization"]
    assert result.program.graph.opset_imports[""] == 23
    held(result, rms_norm)


def test_layer_norm_without_scale_and_shift():
    body = LAYER["pow, sqrt, div"].partition("n = Div")[0] + "y = Div(d, r)"
    result = fused(FuseLayerNorm(), program(body), TOLERANCE)
    assert operators(result.program) == ["LayerNormalization"]


@pytest.mark.parametrize("name", ["layer", "rms"])
def test_golden(name):
    before = program(LAYER["pow, sqrt, div"] if name == "layer" else RMS["pow, sqrt, reciprocal"])
    after = FuseLayerNorm().run(before.clone(), Context()).program
    golden(f"fuse/fuse-layer-norm-{name}", before_and_after(before, after))


def test_a_norm_of_a_norm():
    second = (
        "m2 = ReduceMean<keepdims = 1>(y, last) d2 = Sub(y, m2) s2 = Pow(d2, two) "
        "v2 = ReduceMean<keepdims = 1>(s2, last) e2 = Add(v2, epsilon) r2 = Sqrt(e2) n2 = Div(d2, r2) "
        "g2 = Mul(n2, w) z = Add(g2, b)"
    )
    before = program(f"{LAYER['pow, sqrt, div']} {second}", outputs="float[batch,length,8] z")
    result = fused(FuseLayerNorm(), before, TOLERANCE)
    assert operators(result.program) == ["LayerNormalization", "LayerNormalization"]
    assert result.statistics["norms fused"] == "2 of 2"


SPELLED, ROOT = LAYER["pow, sqrt, div"], RMS["pow, sqrt, reciprocal"]
NEAR_MISSES = {
    "another axis": (SPELLED.replace("last", "wrong_axis"), "the mean runs over the axes (1,)"),
    "centred over another axis": (
        SPELLED.replace("(x, last)", "(x, wrong_axis)"),
        "the mean runs over the axes (1,)",
    ),
    "not its own variance": (
        SPELLED.replace("Pow(d, two)", "Pow(x, two)"),
        "divides 'd' by the root mean square of 'x'",
    ),
    "not squared": (ROOT.replace("Pow(x, two)", "Pow(x, half)"), "a mean of 's', which is no square"),
    "no epsilon": (
        ROOT.replace("e = Add(v, epsilon) r = Sqrt(e)", "r = Sqrt(v)"),
        "without an epsilon inside the root",
    ),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_stay_whole_and_say_why(case):
    body, reason = NEAR_MISSES[case]
    result = fused(FuseLayerNorm(), program(body), TOLERANCE)
    assert not result.modified
    assert result.statistics["norms fused"] == "0 of 0"
    assert reason in " ".join(result.notes)


def test_an_opset_without_the_operator_is_said():
    result = fused(FuseLayerNorm(), program(RMS["product, div"], opset=17), TOLERANCE)
    assert not result.modified
    assert "the model imports opset 17" in result.notes[0]


NORM = f"y = LayerNormalization<axis = -1, epsilon = {EPSILON}>(t, w, b)"
TWO = "float[batch,length,8] x, float[batch,length,8] z"
SUMS = {
    "plain": ("t = Add(x, z)", lambda x, z: x + z),
    "biased": ("a = Add(x, bias) t = Add(a, z)", lambda x, z: x + CONSTANTS["bias"] + z),
    "biased on the other side": ("a = Add(bias, z) t = Add(x, a)", lambda x, z: x + CONSTANTS["bias"] + z),
}


@pytest.mark.parametrize("name", SUMS)
def test_sum_and_norm(name):
    body, total = SUMS[name]
    result = fused(FuseSkipLayerNorm(), program(f"{body} {NORM}", TWO), TOLERANCE)
    assert operators(result.program) == ["SkipLayerNormalization"]
    assert result.statistics["norms fused"] == "1 of 1"
    x, z = (np.random.default_rng(n).standard_normal((2, 5, 8)).astype(F32) for n in range(2))
    (found,) = execute(result.program, [{"x": x, "z": z}])
    expected = layer_norm(total(x.astype(np.float64), z))
    np.testing.assert_allclose(found["y"], expected, atol=TOLERANCE, rtol=0)


def test_skip_golden():
    before = program(f"a = Add(x, bias) t = Add(a, z) {NORM}", TWO)
    after = FuseSkipLayerNorm().run(before.clone(), Context()).program
    golden("fuse/fuse-skip-layer-norm", before_and_after(before, after))


def test_sum_and_rms_norm():
    body = f"t = Add(x, z) y = RMSNormalization<axis = -1, epsilon = {EPSILON}>(t, w)"
    result = fused(FuseSkipLayerNorm(), program(body, TWO, opset=23), TOLERANCE)
    assert operators(result.program) == ["SkipSimplifiedLayerNormalization"]


def test_a_norm_that_is_spelled_out():
    body = "t = Add(x, z) " + LAYER["pow, sqrt, div"].replace("(x, last)", "(t, last)").replace(
        "Sub(x", "Sub(t"
    )
    result = fused(FuseSkipLayerNorm(), program(body, TWO), TOLERANCE)
    assert operators(result.program) == ["SkipLayerNormalization"]


@pytest.mark.parametrize(
    "more",
    [
        ("u = Relu(t)", "u"),  # a residual stream
        (f"u = LayerNormalization<axis = -1, epsilon = {EPSILON}>(t, b, w)", "u"),  # read by two norms
        (f"{NORM.replace('y =', 'v =')} r = Relu(t) u = Add(v, r)", "u"),  # used by three
        ("", "t"),  # an output
    ],
)
def test_a_sum_that_others_read_comes_out_of_the_kernel(more):
    body, output = more
    outputs = f"float[batch,length,8] y, float[batch,length,8] {output}"
    result = fused(FuseSkipLayerNorm(), program(f"t = Add(x, z) {NORM} {body}", TWO, outputs), TOLERANCE)
    assert result.modified
    assert operators(result.program).count("SkipLayerNormalization") >= 1
    assert operators(result.program).count("Add") == body.count("Add"), "the sum is computed twice"


def test_a_bias_that_others_read_stays_out():
    outputs = "float[batch,length,8] y, float[batch,length,8] u"
    before = program(f"a = Add(x, bias) t = Add(a, z) {NORM} u = Relu(a)", TWO, outputs)
    result = fused(FuseSkipLayerNorm(), before, TOLERANCE)
    assert operators(result.program) == ["Add", "SkipLayerNormalization", "Relu"]
    assert len(list(result.program.graph.graph)[1].inputs) == 4, "the bias is added twice"


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (
            f"t = Add(x, bias) {NORM}",
            "float[batch,length,8] x",
            "it normalises no sum of two computed values",
        ),
        (f"t = Mul(x, z) {NORM}", TWO, "it normalises no sum of two computed values"),
        (
            f"t = Add(x, z) {NORM}",
            "float[batch,length,8] x, float[1,length,8] z",
            "the two sides of the sum are not known to have one shape of three axes",
        ),
    ],
)
def test_other_sums_stay_and_say_why(body, inputs, reason):
    result = fused(FuseSkipLayerNorm(), program(body, inputs), TOLERANCE)
    assert not result.modified
    assert result.notes == (f"y: {reason}",)
    assert result.statistics["norms fused"] == "0 of 1"


@pytest.mark.parametrize("pass_", [FuseLayerNorm(), FuseSkipLayerNorm()])
def test_nothing_to_do(pass_):
    result = pass_.run(parsed("y = Relu(x)"), Context())
    assert not result.modified
    assert result.statistics["norms fused"] == "0 of 0"

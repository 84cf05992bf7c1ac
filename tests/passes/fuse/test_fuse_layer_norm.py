"""fuse-layer-norm: norms in any spelling become the operator, and near misses say why they stay."""

import numpy as np
import pytest
from fusing import fused
from graphwright.ir.execute import execute
from graphwright.passes.fuse.fuse_layer_norm import FuseLayerNorm
from graphwright.passes.fuse.fuse_skip_layer_norm import FuseSkipLayerNorm
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed
from norms import F32, LAYER, RMS, TOLERANCE, layer_norm, program, rms_norm


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


@pytest.mark.parametrize("pass_", [FuseLayerNorm(), FuseSkipLayerNorm()])
def test_nothing_to_do(pass_):
    result = pass_.run(parsed("y = Relu(x)"), Context())
    assert not result.modified
    assert result.statistics["norms fused"] == "0 of 0"

"""fuse-skip-layer-norm: a sum and the norm of it are one kernel, whoever else reads the sum."""

import numpy as np
import pytest
from fusing import fused
from graphwright.ir.execute import execute
from graphwright.passes.fuse.fuse_skip_layer_norm import FuseSkipLayerNorm
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators
from norms import CONSTANTS, EPSILON, F32, LAYER, TOLERANCE, layer_norm, program

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

"""fuse-bias-gelu: every spelling of either GELU, and what only looks like one."""

import math

import numpy as np
import pytest
from fusing import fused, weights
from graphwright.ir.execute import execute
from graphwright.passes.fuse.fuse_bias_gelu import FuseBiasGelu
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed

F32 = np.float32
TOLERANCE = 2e-6  # float32 rounding of values up to ten
NUMBERS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "root": math.sqrt(2), "inverse": 1 / math.sqrt(2),
    "cubic": 0.044715, "slope": math.sqrt(2 / math.pi), "wrong": 1.5, "steeper": 0.05,
}  # fmt: skip

ERF = {
    "divided": "d = Div(h, root) e = Erf(d) p = Add(e, one) m = Mul(h, p) y = Mul(m, half)",
    "multiplied": "d = Mul(inverse, h) e = Erf(d) p = Add(one, e) s = Mul(half, h) y = Mul(p, s)",
    "factor in the middle": "d = Div(h, root) e = Erf(d) p = Add(e, one) s = Mul(p, half) y = Mul(h, s)",
    "halved by division": "d = Div(h, root) e = Erf(d) p = Add(e, one) m = Mul(h, p) y = Div(m, two)",
}
TANH = {
    "pow": "c = Pow(h, three) k = Mul(c, cubic) a = Add(h, k) s = Mul(a, slope) t = Tanh(s) "
    "p = Add(t, one) z = Mul(h, half) y = Mul(z, p)",
    "products": "q = Mul(h, h) c = Mul(q, h) k = Mul(cubic, c) a = Add(k, h) s = Mul(slope, a) t = Tanh(s) "
    "p = Add(one, t) m = Mul(h, p) y = Mul(half, m)",
    "factored": "q = Mul(h, h) k = Mul(q, cubic) o = Add(k, one) a = Mul(h, o) s = Mul(a, slope) "
    "t = Tanh(s) p = Add(t, one) m = Mul(p, h) y = Mul(m, half)",
}
OPERATORS = {"erf": "y = Gelu(h)", "tanh": 'y = Gelu<approximate = "tanh">(h)'}
BIASED, BARE = "h = Add(x, bias)", "h = Neg(x)"


def program(body, opset=18, **kwargs):
    numbers = {name: F32(number) for name, number in NUMBERS.items() if f"{name}" in body}
    arrays = {**numbers, **(weights(bias=(8,), scale=2.0) if "bias" in body else {})}
    return parsed(body, "float[batch,length,8] x", "float[batch,length,8] y", arrays, opset=opset, **kwargs)


def fuse(body, **kwargs):
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(F32) * 4
    return fused(FuseBiasGelu(), program(body, **kwargs), TOLERANCE, [{"x": x}])


def gelu(x, tanh):
    """The formulas in float64 (Hendrycks and Gimpel, 2016, section 2)."""
    x = x.astype(np.float64)
    if tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("name", ["erf", "tanh"])
def test_golden(name):
    body = f"{BIASED} {(ERF['divided'] if name == 'erf' else TANH['pow'])}"
    before = program(body)
    after = FuseBiasGelu().run(before.clone(), Context()).program
    golden(f"fuse/fuse-bias-gelu-{name}", before_and_after(before, after))


@pytest.mark.parametrize("spelling", ERF)
def test_erf_with_a_bias(spelling):
    result = fuse(f"{BIASED} {ERF[spelling]}")
    assert operators(result.program) == ["BiasGelu"]
    assert dict(result.statistics) == {"GELUs fused": "1 of 1", "with a bias": 1}


@pytest.mark.parametrize("spelling", TANH)
def test_tanh_with_a_bias(spelling):
    assert operators(fuse(f"{BIASED} {TANH[spelling]}").program) == ["FastGelu"]


@pytest.mark.parametrize(("name", "operator"), [("erf", "BiasGelu"), ("tanh", "FastGelu")])
def test_one_operator_with_a_bias(name, operator):
    assert operators(fuse(f"{BIASED} {OPERATORS[name]}", opset=20).program) == [operator]
    assert operators(fuse(f"h = Add(bias, x) {OPERATORS[name]}", opset=20).program) == [operator]


@pytest.mark.parametrize("spelling", [*ERF, *TANH])
def test_without_a_bias_it_becomes_the_standard_operator(spelling):
    result = fuse(f"{BARE} {ERF.get(spelling) or TANH[spelling]}")
    assert operators(result.program) == ["Neg", "Gelu"]
    node = list(result.program.graph.graph)[1]
    assert node.domain == ""
    assert node.attributes["approximate"].value == ("none" if spelling in ERF else "tanh")
    assert result.program.graph.opset_imports[""] == 20
    assert dict(result.statistics) == {"GELUs fused": "1 of 1", "with a bias": 0}


def test_an_old_opset_gets_the_runtime_s_own_operators():
    erf, tanh = fuse(f"{BARE} {ERF['divided']}", opset=17), fuse(f"{BARE} {TANH['pow']}", opset=17)
    assert [(n.domain, n.op_type) for n in erf.program.graph.graph][1] == ("com.microsoft", "Gelu")
    assert [(n.domain, n.op_type) for n in tanh.program.graph.graph][1] == ("com.microsoft", "FastGelu")
    assert erf.program.graph.opset_imports[""] == 17


@pytest.mark.parametrize("tanh", [False, True])
def test_kernels_compute_the_formulas(tanh):
    """Not against the graph before, but against the papers' formulas, on every size of number."""
    result = fuse(f"{BIASED} {TANH['pow'] if tanh else ERF['divided']}")
    x = np.concatenate([np.linspace(-12, 12, 4800), np.array([0, -0.0, 80, -80, 1e-30, -1e-30, 1e4, -1e4])])
    x = x.astype(F32).reshape(1, -1, 8)
    bias = weights(bias=(8,), scale=2.0)["bias"]
    (found,) = execute(result.program, [{"x": x}])
    np.testing.assert_allclose(found["y"], gelu(x + bias, tanh), atol=1e-6, rtol=1e-6)


NEAR_MISSES = {
    "a wrong root": (
        f"{BIASED} d = Div(h, wrong) e = Erf(d) p = Add(e, one) m = Mul(h, p) y = Mul(m, half)",
        "erf of 'h' meets 'h' again, but is off by",
    ),
    "not halved": (
        f"{BIASED} d = Div(h, root) e = Erf(d) p = Add(e, one) y = Mul(h, p)",
        "erf of 'h' meets 'h' again, but is off by",
    ),
    "a wrong cubic term": (f"{BIASED} {TANH['pow'].replace('cubic', 'steeper')}", "tanh of 'h' meets"),
    "its erf is used too": (
        f"{BIASED} {ERF['divided'].replace('y = Mul', 'g = Mul')} y = Add(g, d)",
        "'d' inside the GELU is used elsewhere too",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_stay_whole_and_say_why(case):
    body, reason = NEAR_MISSES[case]
    result = fuse(body)
    assert not result.modified
    assert len(result.notes) == 1
    assert reason in result.notes[0]
    assert result.statistics["GELUs fused"] == "0 of 0"


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("a = Add(x, bias) y = Gelu(a) ", None),
        ("a = Add(x, one) y = Gelu(a)", "'one' is no vector along the last axis of 'x'"),
        ("n = Neg(x) a = Add(x, n) y = Gelu(a)", "'a' before it adds two computed values"),
        ("a = Add(x, bias) g = Gelu(a) y = Mul(g, a)", "'a' before it is used elsewhere too"),
        ("n = Neg(x) y = Gelu(n)", "no bias is added right before it"),
    ],
)
def test_which_sums_are_biases(body, note):
    result = fuse(body, opset=20)
    assert result.modified == (note is None)
    assert note is None or note in result.notes[0]
    assert result.statistics["GELUs fused"].endswith("of 1")


def test_a_spelled_gelu_of_a_sum_that_is_used_elsewhere_keeps_the_sum():
    result = fuse(f"{BIASED} {ERF['divided'].replace('y =', 'g =')} y = Mul(g, h)")
    assert operators(result.program) == ["Add", "Gelu", "Mul"]


def test_one_gelu_after_another():
    result = fuse(f"{BIASED} {ERF['divided'].replace('y =', 'g =')} i = Add(g, bias) y = Gelu(i)", opset=20)
    assert operators(result.program) == ["BiasGelu", "BiasGelu"]


def test_other_activations_are_none_of_its_business():
    result = fuse("t = Tanh(x) s = Sigmoid(t) y = Mul(t, s)")
    assert not result.modified
    assert dict(result.statistics) == {"GELUs fused": "0 of 0", "with a bias": 0}

"""compute-bfloat16 over attention: its four factors are rounded where they are multiplied, nothing else."""

import ml_dtypes
import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.compute_bfloat16 import ComputeBfloat16
from handmade import before_and_after, golden, operators, parsed
from zoo import fx_program, onnx_program

HEADS, DIM = 2, 8
WIDTH = HEADS * DIM
RNG = np.random.default_rng(0)
WEIGHTS = {f"w{letter}": RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32) for letter in "qkvo"}
SHAPES = {"split": np.array([0, 0, HEADS, DIM]), "merge": np.array([0, 0, WIDTH])}
SCALES = {"root": np.array(DIM**-0.25, np.float32), "scale": np.array(DIM**-0.5, np.float32)}
# Where the scale is: on both factors, as PyTorch writes it, or over their product.
SCORED = {
    "factors": "qs = Mul (qh, root) ks = Mul (kt, root) z = MatMul (qs, ks)",
    "product": "p0 = MatMul (qh, kt) z = Mul (p0, scale)",
}


def attention(scored="factors", cached=False):
    """cached: keys and values stand behind those that come in."""
    sides = "".join(
        f"{x} = MatMul (x, w{x}) {x}r = Reshape ({x}, split) {x}h = Transpose <perm = [0, 2, 1, 3]> ({x}r) "
        for x in "qkv"
    )
    body = (
        f"{sides} kt = Transpose <perm = [0, 1, 3, 2]> (kh) {SCORED[scored]} p = Softmax <axis = -1> (z) "
        "c = MatMul (p, vh) ct = Transpose <perm = [0, 2, 1, 3]> (c) m = Reshape (ct, merge) "
        "y = MatMul (m, wo)"
    )
    inputs = f"float[batch,length,{WIDTH}] x"
    if cached:
        for x in "kv":
            body = body.replace(f"{x}h = Transpose", f"{x}n = Transpose")
            body = body.replace(f"({x}r) ", f"({x}r) {x}h = Concat <axis = 2> (past_{x}, {x}n) ")
            inputs += f", float[batch,{HEADS},past,{DIM}] past_{x}"
    return parsed(body, inputs, f"float[batch,length,{WIDTH}] y", {**WEIGHTS, **SHAPES, **SCALES})


def run(program, context=None, **options):
    return ComputeBfloat16(**options).run(program.clone(), context or Context())


def brain(array):
    return array.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def heads(x):
    return x.reshape(*x.shape[:2], HEADS, DIM).transpose(0, 2, 1, 3)


def test_golden():
    before = attention()
    after = run(before, min_cosine=0.0, products="attention").program
    golden("quantize/compute-bfloat16-attention", before_and_after(before, after))


@pytest.mark.parametrize("scored", SCORED)
def test_outputs_are_those_of_rounded_factors(scored):
    found = run(attention(scored), products="attention")
    assert found.statistics["products in bfloat16"] == "2 of 2"
    x = RNG.standard_normal((3, 7, WIDTH)).astype(np.float32)
    (got,) = execute(found.program, [{"x": x}])
    q, k, v = (brain(heads(x @ WEIGHTS[f"w{letter}"])) for letter in "qkv")
    scores = q @ k.transpose(0, 1, 3, 2) * DIM**-0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    context = brain(weights / weights.sum(-1, keepdims=True)) @ v
    expected = context.transpose(0, 2, 1, 3).reshape(x.shape) @ WEIGHTS["wo"].astype(np.float64)
    exact = execute(attention(scored), [{"x": x}])[0]["y"]
    off = np.sqrt(((exact - expected) ** 2).mean())
    # A number within float32's rounding of a tie may go the other way.
    assert np.sqrt(((got["y"] - expected) ** 2).mean()) < 0.05 * off


def test_which_products():
    counts = {
        which: run(attention(), min_cosine=0.0, products=which).statistics["products in bfloat16"]
        for which in ("all", "linear", "attention")
    }
    assert counts == {"all": "6 of 6", "linear": "4 of 4", "attention": "2 of 2"}


def test_what_is_rounded_already_is_left():
    once = run(attention(), min_cosine=0.0).program
    again = run(once, min_cosine=0.0)
    assert not again.modified
    assert operators(again.program).count("Cast") == operators(once).count("Cast")


def test_behind_int8_layers():
    text = "quantize-dynamic{min_cosine=0.0},compute-bfloat16{min_cosine=0.0,products=attention}"
    ran = Pipeline.parse(text).run(attention(), Context())
    assert ran.ok, ran.steps[-1].error
    assert ran.steps[-1].statistics["products in bfloat16"] == "2 of 2"


def test_beside_int8_only_where_the_target_has_such_products():
    plain, fit = (
        run(attention(), Context(target=named(name)), products="attention")
        for name in ("x86-64-vnni", "x86-64-bf16")
    )
    assert not plain.modified
    assert plain.notes == ("target 'x86-64-vnni' has no products of bfloat16",)
    assert fit.modified


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (lambda: fx_program("bert"), "it is one operator: run to-onnx first, which writes it out"),
        (lambda: onnx_program("gpt_oss"), "no kernel computes its softmax"),
        (
            lambda: attention(cached=True),
            "its keys and values come from a cache, all of which every call would round anew",
        ),
    ],
    ids=["one operator", "sinks", "cache"],
)
def test_what_stays_says_so(program, said):
    found = run(program(), min_cosine=0.0, products="attention")
    assert not found.modified
    assert any(note.endswith(f": its attention stays in float32, {said}") for note in found.notes)

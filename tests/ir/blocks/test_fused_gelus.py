"""Feed-forwards are found through the GELUs of ONNX Runtime, with the bias in the operator or before it."""

import re

import numpy as np
import pytest
from graphwright.ir.blocks import recognise
from graphwright.ir.execute import execute
from graphwright.ir.view import view
from graphwright.passes.fuse.fuse_bias_gelu import FuseBiasGelu
from graphwright.passes.fuse.fuse_qkv import FuseQkv
from graphwright.passes.manager.contract import Context
from handmade import operators, parsed
from zoo import onnx_program

F32 = np.float32
RNG = np.random.default_rng(0)
SHAPES = {
    "up": (8, 20), "gate": (8, 20), "both": (8, 40), "down": (20, 8), "bias": (20,), "other": (20,),
    "turned": (20, 8, 1), "back": (8, 20, 1),
}  # fmt: skip
NUMBERS = {"half": F32(0.5), "axes": np.array([0, 1])}
PLAIN = "h = MatMul(x, up) a = {} y = MatMul(a, down)"
GATED = "h = MatMul(x, up) u = Add(h, other) g = MatMul(x, gate) a = {} m = Mul(u, a) y = MatMul(m, down)"
SPLIT = (
    "b = MatMul(x, both) h, g = Split<axis = -1, num_outputs = 2>(b) a = {} m = Mul(h, a) y = MatMul(m, down)"
)
FUSED = {
    "com.microsoft.Gelu(h)": "gelu",
    "com.microsoft.BiasGelu(h, bias)": "gelu",
    "com.microsoft.FastGelu(h)": "gelu_tanh",
    "com.microsoft.FastGelu(h, bias)": "gelu_tanh",
    "com.microsoft.QuickGelu(h)": "quick_gelu",
    "com.microsoft.QuickGelu<alpha = 1.0>(h)": "silu",
}


def program(body, shape="batch,length,8"):
    arrays = {
        n: RNG.standard_normal(s).astype(F32) for n, s in SHAPES.items() if re.search(rf"\b{n}\b", body)
    }
    arrays |= {name: array for name, array in NUMBERS.items() if re.search(rf"\b{name}\b", body)}
    return parsed(body, f"float[{shape}] x", f"float[{shape}] y", arrays, opset=20)


def found(body, **settings):
    blocks = recognise(view(program(body, **settings)))
    return blocks.feed_forward


@pytest.mark.parametrize(("fused", "name"), FUSED.items())
def test_each_operator_is_its_activation(fused, name):
    (block,) = found(PLAIN.format(fused))
    assert (block.activation, block.width, block.gate, block.up.bias) == (name, 20, None, None)
    assert [value.name for value in block.body] == ["h", "a", "y"]


@pytest.mark.parametrize(("fused", "name"), FUSED.items())
@pytest.mark.parametrize("body", [GATED, SPLIT], ids=["two products", "one product"])
def test_gated_feed_forwards_have_it_in_one_branch(body, fused, name):
    (block,) = found(body.format(fused.replace("(h", "(g")))
    assert block.gate is not None
    assert (block.activation, block.width) == (name, 20)
    assert block.gate_features == ((0, 20) if body is GATED else (20, 40))


@pytest.mark.parametrize("model", ["bert", "gpt2", "albert"])
def test_models_have_the_blocks_that_they_had_before_their_gelus_were_fused(model):
    before = onnx_program(model)
    after = FuseBiasGelu().run(before.clone(), Context()).program
    was, now = recognise(view(before)), recognise(view(after))
    assert any("Gelu" in operator for operator in operators(after))
    assert now.summary() == was.summary()
    assert [(f.activation, f.width, f.root.name) for f in now.feed_forward] == [
        (f.activation, f.width, f.root.name) for f in was.feed_forward
    ]
    assert [len(stack.layers) for stack in now.stack] == [len(stack.layers) for stack in was.stack]


@pytest.mark.parametrize("fused", ["com.microsoft.BiasGelu(g, bias)", "com.microsoft.FastGelu(g, bias)"])
def test_a_pass_behind_the_fusion_merges_the_halves_and_the_bias_stays(fused):
    before = program(GATED.format(fused))
    merged = FuseQkv(gates=True).run(before.clone(), Context())
    assert merged.modified
    assert operators(merged.program).count("MatMul") == 2
    feed = {"x": RNG.standard_normal((2, 3, 8)).astype(F32)}
    (wanted,), (got,) = execute(before, [feed]), execute(merged.program, [feed])
    np.testing.assert_allclose(got["y"], wanted["y"], rtol=1e-5, atol=1e-5)


NEAR_MISSES = {
    "a bias that is computed": "b = ReduceMax<keepdims = 0>(h, axes) a = com.microsoft.BiasGelu(h, b)",
    "a GELU of something else": "s = Softmax(h) a = com.microsoft.BiasGelu(s, bias)",
    "with the bias and without": "g = com.microsoft.BiasGelu(h, bias) i = Gelu(h) a = Max(i, g)",
    "two biases": "g = com.microsoft.BiasGelu(h, bias) i = com.microsoft.BiasGelu(h, other) a = Max(g, i)",
    "half a GELU": "g = com.microsoft.BiasGelu(h, bias) a = Mul(g, half)",
    "another alpha": "a = com.microsoft.QuickGelu<alpha = 1.5>(h)",
}


@pytest.mark.parametrize("between", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_only_looks_like_one_is_none(between):
    assert not found(f"h = MatMul(x, up) {between} y = MatMul(a, down)")


def test_a_bias_along_positions_is_none_of_the_features():
    """Features of a convolution are on axis 1, and the operator adds along the last one."""
    body = "h = Conv(x, turned) a = {} y = Conv(a, back)"
    assert found(body.format("com.microsoft.Gelu(h)"), shape="batch,8,20")
    assert not found(body.format("com.microsoft.BiasGelu(h, bias)"), shape="batch,8,20")

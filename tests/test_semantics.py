"""docs/semantics.md, row by row: what a graph means where runtimes differ, and that builds of it agree."""

import math

import numpy as np
import onnx
import pytest
import torch
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.ir.capture import capture
from graphwright.ir.errors import BackendError
from graphwright.ir.execute import execute
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from handmade import parsed
from torch import nn
from tvm_run import run, sizes_of

HEADS, WIDTH, HIDDEN = 2, 16, (1, 3)  # the query that sees no key: row and place


class Attention(nn.Module):
    """One attention over a boolean (batch, 1, queries, keys) mask, in a spelling."""

    def __init__(self, fill, spelling):
        super().__init__()
        self.fill, self.spelling = fill, spelling
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in "qkv")

    def forward(self, x, keep):
        batch, length, _ = x.shape
        q, k, v = (
            side(x).view(batch, length, HEADS, -1).transpose(1, 2) for side in (self.q, self.k, self.v)
        )
        if self.spelling == "selected":
            scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~keep, self.fill)
            context = scores.softmax(-1) @ v
        else:
            mask = (
                keep
                if self.fill is None
                else torch.zeros_like(keep, dtype=x.dtype).masked_fill(~keep, self.fill)
            )
            if self.spelling == "sdpa":
                context = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            else:
                context = (q @ k.transpose(-1, -2) / 8**0.5 + mask).softmax(-1) @ v
        return context.transpose(1, 2).reshape(batch, length, WIDTH)


def case():
    torch.manual_seed(1)
    x, keep = torch.randn(2, 5, WIDTH), torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    keep[0, :, :, 2:], keep[HIDDEN[0], :, HIDDEN[1]] = False, False
    return {"x": x, "keep": keep}


SMALLEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize(
    ("fill", "spelling", "means"),
    [
        (None, "sdpa", "zero"), (-math.inf, "sdpa", "zero"), (SMALLEST, "sdpa", "mean"),
        (-math.inf, "added", "nan"), (SMALLEST, "added", "mean"), (-1e4, "added", "scores"),
        (-math.inf, "selected", "nan"), (SMALLEST, "selected", "mean"), (-1e4, "selected", "mean"),
    ],
)  # fmt: skip
def test_a_query_that_sees_no_key(fill, spelling, means):
    torch.manual_seed(0)
    module, inputs = Attention(fill, spelling).eval(), case()
    with torch.no_grad():
        wanted = module(**inputs).numpy()
        values = module.v(inputs["x"])[HIDDEN[0]].numpy()
    row = wanted[HIDDEN]
    if means == "mean":
        np.testing.assert_allclose(row, values.mean(0), atol=1e-6)
    elif means == "zero":
        assert not row.any()
    elif means == "nan":
        assert np.isnan(row).all()
    else:  # the scores' own softmax: -10,000 is added to all of them alike
        assert np.abs(row - values.mean(0)).max() > 1e-3
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    traced = capture(module, inputs=inputs)
    plain = Pipeline.parse("to-onnx").run(traced).program
    (exact, *_) = chain("exact", traced)
    built = {
        "traced": execute(traced, [feed], 1)[0],
        "plain": execute(plain, [feed], 1)[0],
        "exact": OnnxRuntime().build(exact.run(traced).program, threads=1).run(feed),
        "tvm from fx": Tvm().build(traced, buckets=[sizes_of(traced, feed)]).run(feed),
        "tvm from onnx": Tvm().build(plain, buckets=[sizes_of(plain, feed)]).run(feed),
    }
    others = np.ones(wanted.shape[:2], bool)
    others[HIDDEN] = False
    for name, outputs in built.items():
        (found,) = outputs.values()
        np.testing.assert_allclose(found[others], wanted[others], atol=1e-5, err_msg=name)
        if means == "nan":  # never a finite number that looks like an answer
            assert np.isnan(found[HIDDEN]).all() or not found[HIDDEN].any(), name
        else:
            np.testing.assert_allclose(found[HIDDEN], row, atol=1e-5, err_msg=name)


def both(program, feed):
    """(ONNX Runtime's outputs without graph optimisations, TVM's)"""
    return execute(program, [feed], 1)[0], run(relax_module(program, sizes_of(program, feed)), feed, 1)


def agree(program, feed, **tolerance):
    ours, theirs = both(program, feed)
    for name, wanted in ours.items():
        assert theirs[name].dtype == wanted.dtype
        np.testing.assert_allclose(theirs[name], wanted, **tolerance)
    return ours


QKV = "float[1,1,2,4] q, float[1,1,5,4] k, float[1,1,5,4] v"


def sides(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((1, 1, n, 4), np.float32) for name, n in (("q", 2), ("k", 5), ("v", 5))}


def reference(feed, keep):
    """Attention in float64 over the keys that a (queries, keys) mask keeps."""
    q, k, v = (feed[name][0, 0].astype(np.float64) for name in "qkv")
    scores = np.where(keep, q @ k.T / 2, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v)[None, None]


def test_causal_attention_without_a_cache_counts_from_the_first_key():
    feed = sides()
    program = parsed("y = Attention <is_causal=1> (q, k, v)", QKV, "float[1,1,2,4] y", opset=23)
    found = agree(program, feed, atol=1e-6)["y"]
    np.testing.assert_allclose(found, reference(feed, np.tri(2, 5, dtype=bool)), atol=1e-6)
    tensors = [torch.from_numpy(feed[name]) for name in "qkv"]
    np.testing.assert_allclose(
        nn.functional.scaled_dot_product_attention(*tensors, is_causal=True), found, atol=1e-6
    )


def test_causal_attention_over_a_cache_counts_to_the_last_key_and_tvm_refuses_it():
    feed = sides()
    split = {
        "q": feed["q"], "k": feed["k"][:, :, 3:], "v": feed["v"][:, :, 3:],
        "past_k": feed["k"][:, :, :3], "past_v": feed["v"][:, :, :3],
    }  # fmt: skip
    program = parsed(
        "y, ks, vs = Attention <is_causal=1> (q, k, v, , past_k, past_v)",
        "float[1,1,2,4] q, float[1,1,2,4] k, float[1,1,2,4] v, float[1,1,3,4] past_k, float[1,1,3,4] past_v",
        "float[1,1,2,4] y, float[1,1,5,4] ks, float[1,1,5,4] vs",
        opset=23,
    )
    found = execute(program, [split], 1)[0]["y"]
    np.testing.assert_allclose(found, reference(feed, np.tri(2, 5, 3, dtype=bool)), atol=1e-6)
    with pytest.raises(BackendError, match="Attention with its input 4"):
        relax_module(program, {})


@pytest.mark.parametrize("count", [5, 4, 2])
def test_causal_attention_over_counted_keys_counts_to_the_last_of_those_and_tvm_refuses_it(count):
    feed = {**sides(), "n": np.array([count])}
    program = parsed(
        "y = Attention <is_causal=1> (q, k, v, , , , n)", f"{QKV}, int64[1] n", "float[1,1,2,4] y", opset=24
    )
    found = execute(program, [feed], 1)[0]["y"]
    keep = np.tri(2, 5, count - 2, dtype=bool) & (np.arange(5) < count)
    np.testing.assert_allclose(found, reference(feed, keep), atol=1e-6)
    with pytest.raises(BackendError, match="Attention with its input 4"):
        relax_module(program, {})


@pytest.mark.parametrize("fill", [-np.inf, np.finfo(np.float32).min])
def test_a_fused_attention_gives_zero_for_a_row_of_the_smallest_float_as_for_infinity(fill):
    mask = np.zeros((2, 5), np.float32)
    mask[1] = fill
    program = parsed("y = Attention (q, k, v, m)", f"{QKV}, float[2,5] m", "float[1,1,2,4] y", opset=23)
    found = agree(program, {**sides(), "m": mask}, atol=1e-6)["y"]
    assert not found[0, 0, 1].any()
    assert found[0, 0, 0].all()


def test_zeros_are_quantized_with_a_scale_of_one():
    program = parsed("y, s, z = DynamicQuantizeLinear (x)", "float[n] x", "uint8[n] y, float s, uint8 z")
    found = agree(program, {"x": np.zeros(3, np.float32)}, rtol=0)
    assert (found["s"], found["z"], found["y"].tolist()) == (1, 0, [0, 0, 0])


def test_a_nan_has_code_zero_and_no_part_in_the_range_and_a_product_of_it_is_finite():
    program = parsed(
        "y, s, z = DynamicQuantizeLinear (x)\nd = DequantizeLinear (y, s, z)",
        "float[n] x", "uint8[n] y, float s, uint8 z, float[n] d",
    )  # fmt: skip
    found = execute(program, [{"x": np.array([1, np.nan, -2], np.float32)}], 1)[0]
    np.testing.assert_allclose(found["s"], 3 / 255, rtol=1e-6)
    assert found["y"].tolist() == [255, 0, 0]
    assert np.isfinite(found["d"]).all()


VALUES = np.array([-9.5, -8.5, -0.5, 0.5, 1.5, 2.5, 7.5, 8.5], np.float32)


def test_quantize_linear_rounds_to_even_and_saturates_where_a_cast_to_four_bits_does_neither():
    cast = parsed("c = Cast <to=22> (x)\ny = Cast <to=1> (c)", "float[n] x", "float[n] y", opset=21)
    found = execute(cast, [{"x": VALUES}], 1)[0]["y"]
    assert found.tolist() == [6, 7, -1, 1, 2, 3, -8, -7]  # half away from zero, modulo 16
    with pytest.raises(BackendError, match="Cast with 4-bit integers"):
        relax_module(cast, {"n": 8})
    for dtype, low, high in ((np.int8, -128, 127), (np.uint8, 0, 255)):
        program = parsed(
            "c = QuantizeLinear (x, one, zero)\ny = Cast <to=1> (c)", "float[n] x", "float[n] y",
            {"one": np.float32(1), "zero": dtype(0)}, opset=21,
        )  # fmt: skip
        values = np.array([-300, -0.5, 0.5, 1.5, 2.5, 300], np.float32)
        found = agree(program, {"x": values}, rtol=0)["y"]
        assert found.tolist() == np.clip(np.rint(values), low, high).tolist()


def nbits(block, level, k=256, n=64):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (n, k // block, block // 2)).astype(np.uint8)
    scales = ((rng.random((n, k // block)) + 0.5) / 50).astype(np.float32)
    attributes = f"K={k}, N={n}, bits=4, block_size={block}, accuracy_level={level}"
    program = parsed(
        f"y = com.microsoft.MatMulNBits <{attributes}> (x, codes, scales)",
        f"float[m,{k}] x", f"float[m,{n}] y", {"codes": codes, "scales": scales},
    )  # fmt: skip
    whole = np.stack([codes & 15, codes >> 4], -1).reshape(n, -1, block).astype(np.float64) - 8
    weight = (whole * scales[..., None]).reshape(n, k).T
    return program, weight, rng.standard_normal((40, k), np.float32)


@pytest.mark.parametrize("block", [16, 32])
def test_a_row_of_a_product_of_rounded_blocks_is_the_same_among_any_others(block):
    """But for the last bits of float32: AVX2's kernel for one row adds blocks in another order."""
    program, weight, x = nbits(block, 4)
    session = OnnxRuntime().build(program, threads=2)
    whole = session.run({"x": x})["y"]
    for rows in (1, 2, 3, 5, 33):
        found = session.run({"x": x[:rows]})["y"]
        np.testing.assert_allclose(found, whole[:rows], rtol=0, atol=3e-7 * np.abs(whole).max())
    exact = x.astype(np.float64) @ weight
    assert (
        1e-3 < np.abs(whole - exact).max() / np.abs(exact).max() < 2e-2
    )  # activations are rounded to 8 bits


@pytest.mark.parametrize("block", [64, 128])
def test_larger_blocks_keep_a_row_to_float_rounding_only(block):
    program, _, x = nbits(block, 4)
    session = OnnxRuntime().build(program, threads=2)
    whole, alone = session.run({"x": x})["y"], session.run({"x": x[:1]})["y"]
    np.testing.assert_allclose(alone, whole[:1], atol=1e-5)


def test_a_nan_in_a_row_leaves_every_other_row_as_it_was():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    dirty = x.copy()
    dirty[[0, 1, 2], [0, 1, 2]] = np.nan
    for operator in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"):
        program = parsed(
            f"a = Constant <value_ints=[1]> ()\ny = {operator} <keepdims=0> (x, a)",
            "float[b,3] x",
            "float[b] y",
        )
        for outputs in both(program, {"x": dirty}):
            np.testing.assert_array_equal(outputs["y"][3], getattr(np, operator[6:].lower())(x[3]))
        found = execute(program, [{"x": dirty}], 1)[0]["y"]
        # ONNX Runtime's extremes drop a NaN by its place in the row, sums keep it.
        assert np.isnan(found[:3]).all() == (operator in ("ReduceSum", "ReduceMean"))


@pytest.mark.parametrize("exponent", [2, 3])
def test_a_power_of_a_float_to_an_integer(exponent):
    program = parsed("y = Pow (x, e)", "float[n] x", "float[n] y", {"e": np.array(exponent)})
    x = np.array([1, -2, 3.5], np.float32)
    np.testing.assert_allclose(agree(program, {"x": x}, rtol=1e-6)["y"], x**exponent, rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 0])
def test_one_hot_counts_negative_ids_from_the_end_and_leaves_out_what_is_beyond(axis):
    program = parsed(
        f"y = OneHot <axis={axis}> (x, d, v)", "int64[n] x", "float[n,4] y" if axis else "float[4,n] y",
        {"d": np.array(4), "v": np.array([0, 1], np.float32)},
    )  # fmt: skip
    found = agree(program, {"x": np.array([-1, -5, 4, 3, 0])}, rtol=0)["y"]
    wanted = np.zeros((5, 4))
    wanted[[0, 3, 4], [3, 3, 0]] = 1
    np.testing.assert_array_equal(found, wanted if axis else wanted.T)


def test_the_versions_that_these_rows_were_read_from():
    """Another version may mean another thing: read docs/semantics.md again before changing this."""
    import onnxruntime
    import tvm

    assert (onnxruntime.__version__, onnx.__version__) == ("1.31.0", "1.23.0")
    assert tvm.__version__.startswith("0.27.0")

"""The layer report: ranges, clipping and noise against the formula in float64, the kernel that really ran."""

import math

import numpy as np
import onnx_ir
import pytest
from graphwright.backends.target import named
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.passes.quantize.report.layer import decibels, origin
from graphwright.passes.quantize.report.layers import layers
from handmade import parsed
from int8_emulation import dynamic_product

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 32)).astype(np.float32)
UP, DOWN = (RNG.standard_normal(shape).astype(np.float32) for shape in ((32, 64), (64, 64)))


@pytest.fixture(scope="module")
def pair():
    before = parsed(
        "h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)",
        "float[batch,length,32] x",
        "float[batch,length,64] y",
        {"up": UP, "down": DOWN},
    )
    quantize = QuantizeDynamic(min_cosine=0, scale="tensor")
    return before, quantize.run(before.clone(), Context(target=named("x86-64-vnni"))).program


def test_the_noise_of_a_layer_is_that_of_its_integers(pair):
    found = {layer.weight: layer for layer in layers(*pair, [{"x": X}], {"x": X})}
    assert set(found) == {"up", "down"}
    x = X.reshape(-1, 32)
    scale = np.abs(UP).max(axis=0) / np.float32(127)
    integers = np.rint(UP / scale)
    expected = x.astype(np.float64) @ UP.astype(np.float64)
    up = found["up"]
    assert up.snr == pytest.approx(decibels(expected, dynamic_product(x, integers, scale)), abs=0.01)
    assert up.weight_snr == pytest.approx(decibels(UP.astype(np.float64), integers * scale), abs=0.01)
    assert up.low == pytest.approx(x.min(), rel=0.01)
    assert up.high == pytest.approx(x.max(), rel=0.01)
    assert up.clipped == 0
    assert found["down"].low == 0  # behind a Relu


def test_the_kernel_and_both_times_are_those_that_ran(pair):
    for layer in layers(*pair, [{"x": X}], {"x": X}):
        assert layer.kernel in {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
        assert layer.before_us > 0
        assert layer.after_us > 0


def test_worst_comes_first_and_nothing_is_found_in_float(pair):
    before, after = pair
    ratios = [layer.snr for layer in layers(before, after, [{"x": X}], {"x": X})]
    assert ratios == sorted(ratios)
    assert layers(before, before, [{"x": X}], {"x": X}) == []
    assert layers(after, after, [{"x": X}], {"x": X}) == []  # int8 before already


def test_clipping_is_the_share_outside_a_static_range():
    integers = np.clip(np.rint(UP / 0.05), -127, 127).astype(np.int8)
    before = parsed("y = MatMul (x, up)", "float[b,32] x", "float[b,64] y", {"up": UP})
    after = parsed(
        """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        w = DequantizeLinear (integers, t, o) y = MatMul (d, w)""",
        "float[b,32] x",
        "float[b,64] y",
        {"s": np.float32(0.01), "z": np.uint8(128), "t": np.float32(0.05), "o": np.int8(0)}
        | {"integers": integers},
    )
    after.graph.graph.initializers["integers"].name = "up.int8"
    x = X.reshape(-1, 32)
    (found,) = layers(before, after, [{"x": x}], {"x": x})
    low, high = -1.28, 1.27
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.clipped == pytest.approx(((x < low - 0.005) | (x > high + 0.005)).mean())
    assert found.clipped > 0.1


def test_names_lead_back_to_the_weight():
    names = {"a.weight": 1, "b": 2}
    assert origin("a.weight.int8", names) == "a.weight"
    assert origin("b.flat.int8_1", names) == "b"
    assert origin("c.int8", names) is None


def test_decibels_of_the_two_ends():
    assert decibels(np.ones(3), np.ones(3)) == math.inf
    assert decibels(np.zeros(3), np.ones(3)) == -math.inf
    assert decibels(np.full(4, 10.0), np.full(4, 9.0)) == pytest.approx(20)


def test_a_weight_of_other_sizes_is_not_taken_for_the_original(pair):
    before, after = pair
    other = before.clone()
    weight = other.graph.graph.initializers["down"]
    weight.const_value = onnx_ir.Tensor(np.ones((64, 32), np.float32), name="down")
    assert [layer.weight for layer in layers(other, after, [{"x": X}], {"x": X})] == ["up"]

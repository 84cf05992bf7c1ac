"""Int8 sums without VNNI: what the weights predict, and what sums done as VPMADDUBSW does them show."""

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.int8.integer import integer_products
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.passes.quantize.report.saturation import emulate, overflowing, saturations
from handmade import parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_emulation import integer_product


def pair_sums(first, second):
    return [a * int(first) + b * int(second) for a in range(256) for b in range(256)]


@pytest.mark.parametrize(
    ("first", "second"), [(64, 64), (65, 64), (-64, -64), (-65, -64), (127, -127), (127, 1), (127, 2)]
)
def test_a_pair_of_weights_overflows_exactly_if_some_activations_make_it(first, second):
    sums = pair_sums(first, second)
    expected = max(sums) > 32767 or min(sums) < -32768
    assert overflowing(np.array([[first], [second]], np.int8)).item() == expected


def test_an_odd_last_weight_is_paired_with_zero():
    found = overflowing(np.array([[127], [127], [127]], np.int8))
    np.testing.assert_array_equal(found, [[True], [False]])


def test_unsigned_weights_are_multiplied_in_sixteen_bits():
    assert not overflowing(np.full((4, 2), 255, np.uint8)).any()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 20),
    depth=st.integers(1, 9),
    limit=st.sampled_from([64, 127]),
)
def test_the_emulation_adds_as_the_reference_does(seed, rows, depth, limit):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    w = rng.integers(-limit, limit + 1, (depth, 5)).astype(np.int8)
    seen, error = emulate(x, w)
    right, wrong = (integer_product(x.astype(np.int64), w, saturate=each) for each in (False, True))
    spread = np.sqrt((right.std(axis=0) ** 2).mean())
    expected = np.sqrt(((right - wrong) ** 2).mean()) / (spread or 1)
    assert error == pytest.approx(expected, rel=1e-9)
    assert (seen > 0) == (wrong != right).any()
    if not overflowing(w).any():
        assert seen == error == 0


def quantized(**options):
    rng = np.random.default_rng(0)
    up, down = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 64), (64, 32)))
    up[:2] = 3.0  # a pair of weights of one sign and full size in every column
    program = parsed(
        "h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)",
        "float[batch,length,32] x",
        "float[batch,length,32] y",
        {"up": up, "down": down},
    )
    context = Context(target=named("x86-64-vnni"))
    return QuantizeDynamic(min_cosine=0, **options).run(program, context).program


FEEDS = [{"x": np.random.default_rng(1).standard_normal((2, 5, 32)).astype(np.float32) + 2}]


def test_full_weights_saturate_without_vnni_and_reduced_ones_cannot():
    full = saturations(quantized(weights="full"), FEEDS)
    assert [each.layer for each in full] == [p.output for p in integer_products(quantized().graph)]
    assert full[0].possible > 1 / 16
    assert full[0].seen > 0
    assert full[0].error > 0.01
    reduced = saturations(quantized(weights="reduced"), FEEDS)
    assert len(reduced) == 2
    assert all(each.possible == each.seen == each.error == 0 for each in reduced)


def test_qdq_spelling_is_found_and_products_of_activations_are_not():
    w = np.random.default_rng(0).integers(-127, 128, (32, 16)).astype(np.int8)
    program = parsed(
        """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        v = DequantizeLinear (w, s, zw) h = MatMul (d, v) t = Transpose <perm = [0, 2, 1]> (h)
        y = MatMul (h, t)""",
        "float[batch,length,32] x",
        "float[batch,length,length] y",
        {"s": np.float32(0.05), "z": np.uint8(128), "zw": np.int8(0), "w": w},
    )
    (found,) = integer_products(program.graph)
    assert (found.output, found.activation.name, found.quantizer.op_type) == ("h", "q", "QuantizeLinear")
    np.testing.assert_array_equal(found.integers(), w)
    (product,) = saturations(program, FEEDS)
    assert product.possible == overflowing(w).mean()

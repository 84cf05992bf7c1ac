"""The affine mapping of weights, and the range that keeps 16-bit sums from saturating."""

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.errors import WeightError
from graphwright.passes.quantize.int8.weights import FULL, REDUCED, deepest, limit_for, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_emulation import dynamic_product, integer_product


@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([1, 2, 7, 64, 1023, 1025, 2049]),
    limit=st.sampled_from([FULL, REDUCED]),
    dtype=st.sampled_from([np.float32, np.float16]),
    transposed=st.booleans(),
    exponent=st.integers(-3, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_half_a_step_at_most(rows, columns, limit, dtype, transposed, exponent, seed):
    weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * 10.0**exponent).astype(dtype)
    weight = np.asfortranarray(weight) if transposed else weight
    integers, scale = quantize(weight, limit, "w")
    assert (integers.dtype, scale.dtype, integers.flags.c_contiguous) == (np.int8, np.float32, True)
    assert (np.abs(integers.astype(int)) <= limit).all()
    exact = weight.astype(np.float64)
    assert (np.abs(integers * scale.astype(np.float64) - exact) <= scale * (0.5 + 1e-4)).all()
    largest = np.abs(exact).max(axis=0)
    assert (np.abs(integers.astype(int)).max(axis=0)[largest > 0] == limit).all()


def test_columns_of_zeros_and_of_next_to_nothing():
    weight = np.zeros((8, 3), np.float32)
    weight[:, 1] = 1e-44  # below float32's normal numbers: the scale would be, too
    weight[:, 2] = 0.5
    integers, scale = quantize(weight, FULL, "w")
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert not integers[:, :2].any()
    assert (integers[:, 2] == FULL).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(bad):
    weight = np.ones((4, 2000), np.float32)
    weight[3, 1999] = bad
    with pytest.raises(WeightError, match=r"'encoder\.3\.up' has NaN or infinite"):
        quantize(weight, FULL, "encoder.3.up")


@pytest.mark.parametrize(
    ("target", "limit"),
    [("x86-64-avx2", REDUCED), ("x86-64-avx512", REDUCED), ("x86-64-vnni", FULL), ("aarch64-neon", FULL)],
)
def test_the_range_follows_the_target(target, limit):
    chosen, why = limit_for(named(target))
    assert chosen == limit
    assert target in why


def test_an_unknown_target_is_safe_and_a_request_is_obeyed_with_a_warning():
    assert limit_for(None)[0] == REDUCED
    assert limit_for(named("x86-64-vnni"), "reduced")[0] == REDUCED
    chosen, why = limit_for(named("x86-64-avx2"), "full")
    assert chosen == FULL
    assert "saturate" in why


def test_full_range_saturates_without_vnni_and_the_reduced_range_never_does():
    rng = np.random.default_rng(0)
    weight = (1 - 0.3 * rng.random((64, 16))).astype(np.float32)
    x = rng.random((5, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ weight
    errors = {}
    for limit in (FULL, REDUCED):
        integers, scale = quantize(weight, limit, "w")
        for saturate in (False, True):
            found = dynamic_product(x, integers, scale, saturate=saturate)
            errors[limit, saturate] = np.abs(found - exact).max() / np.abs(exact).max()
    assert errors[FULL, False] < 0.005
    assert errors[FULL, True] > 0.1
    assert errors[REDUCED, True] == errors[REDUCED, False] < 0.01


def test_the_reduced_range_is_the_widest_that_cannot_saturate():
    most = np.full((1, 2), 255)
    for sign in (1, -1):
        for limit, same in ((REDUCED, True), (REDUCED + 1, False)):
            weight = np.full((2, 1), sign * limit)
            wide, narrow = (integer_product(most, weight, saturate) for saturate in (False, True))
            assert (wide == narrow).all() == same


def test_the_deepest_product_fits_32_bits():
    for limit in (FULL, REDUCED):
        assert deepest(limit) * 255 * limit < 2**31 <= (deepest(limit) + 1) * 255 * limit

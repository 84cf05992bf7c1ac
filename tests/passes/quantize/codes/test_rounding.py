"""Rounding to nearest on a grid for each group; what float16 holds of scales and zeros is what is used."""

import numpy as np
import pytest
from graphwright.ir.errors import WeightError
from graphwright.passes.quantize.codes.packed import stored_scale
from graphwright.passes.quantize.codes.rounding import Scheme, checked, grid, round_to_nearest


def drawn(rows=8, columns=100, size=0.1):
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32) * np.float32(size)


@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [1e-30, 1e-7, 0.1, 1e6])
def test_each_weight_is_within_a_step(bits, size, fractions):
    weight = drawn(size=size)
    found = round_to_nearest(weight, Scheme(bits, 32, fractions))
    steps = np.repeat(found.scale, 32, axis=1)[:, :100]
    error = np.abs(found.floats().astype(np.float64) - weight)
    # Half a step, half of one for the zero, and what float16 takes from the scale over the whole range.
    assert (error <= steps * (1.0 + 2**bits * 2.0**-10)).all()
    assert (found.codes.max(), found.codes.dtype) == (2**bits - 1, np.uint8)


def test_scales_are_halves_where_halves_are_normal_numbers():
    assert stored_scale(round_to_nearest(drawn(), Scheme(4, 32)).scale).dtype == np.float16
    for size in (1e-7, 1e6):
        scale = round_to_nearest(drawn(size=size), Scheme(4, 32)).scale
        assert stored_scale(scale).dtype == np.float32


def test_fractions_follow_a_range_that_whole_zeros_miss():
    codes = np.random.default_rng(1).integers(0, 16, (8, 64))
    codes[:, ::32], codes[:, 1::32] = 0, 15
    weight = (0.125 * (codes - 7.5)).astype(np.float32)
    exact, near = (round_to_nearest(weight, Scheme(4, 32, fractions)) for fractions in (True, False))
    np.testing.assert_array_equal(exact.floats(), weight)
    np.testing.assert_array_equal(exact.codes, codes)
    assert np.abs(near.floats() - weight).max() > 0.06


def test_a_range_is_shrunk_for_each_group():
    weight = drawn(2, 64)
    whole, half = (grid(weight, Scheme(4, 32), shrink) for shrink in (1.0, np.array([[1.0, 0.5]] * 2)))
    np.testing.assert_allclose(half.scale / whole.scale, [[1, 0.5]] * 2, rtol=2e-3)


def test_zeros_stay_and_what_is_no_number_is_named():
    assert not round_to_nearest(np.zeros((3, 40), np.float32), Scheme(2, 32)).floats().any()
    with pytest.raises(WeightError, match="'w' has NaN"):
        checked(np.array([[1.0, np.inf]]), "w")

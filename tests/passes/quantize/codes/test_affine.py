"""The uniform affine mapping: half a step at most, zero kept, a range for each tensor, channel or group."""

import numpy as np
import pytest
from graphwright.passes.quantize.codes.affine import Affine, extremes, fit, integers, spread
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn(seed, shape, exponent):
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal(shape) + rng.uniform(-1, 1)) * 10.0**exponent).astype(np.float32)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 70)),
    bits=st.sampled_from([2, 3, 4, 7, 8, 12, 16]),
    symmetric=st.booleans(),
    signed=st.booleans(),
    axis=st.sampled_from([None, 0, 1, (0, 1)]),
    exponent=st.integers(-4, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_numbers_move_by_half_a_step_at_most(shape, bits, symmetric, signed, axis, exponent, seed):
    x = drawn(seed, shape, exponent)
    low, high = integers(bits, signed, narrow=signed and symmetric)
    affine = fit(*extremes(x, axis), low, high, symmetric=symmetric)
    q = affine.quantize(x)
    assert low <= q.min()
    assert q.max() <= high
    # The zero is rounded too: at an end of the range that may cost another half step.
    slack = 0.5 if symmetric else 1.0
    error = np.abs(affine.dequantize(q).astype(np.float64) - x)
    assert (error <= affine.scale.astype(np.float64) * (slack + 2.0 ** (bits - 22))).all()
    inside = (q > low) & (q < high)
    assert (error[inside] <= (affine.scale * np.ones(shape))[inside] * (0.5 + 2.0 ** (bits - 22))).all()


@given(st.integers(1, 80), st.sampled_from([1, 4, 16, 32, 100]), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_each_group_is_mapped_as_if_it_were_alone(columns, group, symmetric, seed):
    x = drawn(seed, (3, columns), 0)
    affine = fit(*extremes(x, 0, group), *integers(4), symmetric=symmetric, group=group)
    assert affine.scale.shape == affine.zero.shape == (3, -(-columns // group))
    found = affine.simulate(x)
    for row in range(3):
        for start in range(0, columns, group):
            part = x[row, start : start + group]
            alone = fit(part.min(), part.max(), *integers(4), symmetric=symmetric)
            np.testing.assert_array_equal(found[row, start : start + group], alone.simulate(part))


def test_the_formula():
    affine = fit(-1.0, 3.0, 0, 15)
    assert affine.scale == np.float32(4 / 15)
    assert affine.zero == 4  # round(0 + 1 / (4 / 15)) = round(3.75)
    x = np.array([-9.0, -1.0, 0.0, 1.0, 3.0, 9.0], np.float32)
    np.testing.assert_array_equal(affine.quantize(x), [0, 0, 4, 8, 15, 15])
    np.testing.assert_allclose(affine.dequantize(np.array([0, 4, 15])), np.array([-4, 0, 11]) * 4 / 15, 1e-6)
    symmetric = fit(-1.0, 3.0, -127, 127, symmetric=True)
    assert symmetric.scale == np.float32(3 / 127)
    assert symmetric.zero == 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("least", "most"), [(-1.0, 2.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-42, 0)])
def test_zero_stays_zero_in_any_range(least, most, symmetric):
    for bits in (1, 2, 3, 4, 8):
        affine = fit(least, most, *integers(bits), symmetric=symmetric)
        assert np.isfinite(affine.scale)
        assert affine.scale > 0
        assert affine.simulate(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_halves_go_to_even_as_onnx_rounds():
    affine = Affine(np.float32(1), np.int32(0), -8, 7)
    assert affine.quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "expected", "dtype"),
    [
        (8, False, False, (0, 255), np.uint8),
        (8, True, False, (-128, 127), np.int8),
        (8, True, True, (-127, 127), np.int8),
        (2, False, False, (0, 3), np.uint8),
        (16, True, False, (-32768, 32767), np.int32),
    ],
)
def test_integers_of_so_many_bits(bits, signed, narrow, expected, dtype):
    assert integers(bits, signed, narrow) == expected
    assert Affine(np.float32(1), np.int32(0), *expected).dtype is dtype


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="bits is 0"):
        integers(0)
    with pytest.raises(ValueError, match="3 groups of 16 do not cover axis 1"):
        spread(np.ones((2, 3)), (2, 64), 16)

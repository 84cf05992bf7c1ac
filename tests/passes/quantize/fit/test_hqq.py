"""HQQ's zeros leave less of the error that it minimises, group by group."""

import numpy as np
from graphwright.passes.quantize.codes.rounding import Scheme, round_to_nearest
from graphwright.passes.quantize.fit.hqq import NORM, hqq
from hypothesis import given, settings
from hypothesis import strategies as st


def weights(seed, columns=100):
    return np.random.default_rng(seed).standard_t(4, (16, columns)).astype(np.float32) * 0.05


def losses(weight, coded, group):
    error = np.abs(coded.floats().astype(np.float64) - weight) ** NORM
    return np.add.reduceat(error, np.arange(0, weight.shape[1], group), axis=1)


@given(st.sampled_from([2, 3, 4]), st.sampled_from([16, 32, 64]), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_no_group_loses_more_than_by_rounding_and_most_lose_less(bits, group, seed):
    weight = weights(seed)
    found, plain = hqq(weight, Scheme(bits, group)), round_to_nearest(weight, Scheme(bits, group))
    np.testing.assert_array_equal(found.scale, plain.scale)
    ours, theirs = losses(weight, found, group), losses(weight, plain, group)
    assert (ours <= theirs * (1 + 1e-4)).all()
    assert ours.sum() < 0.99 * theirs.sum()


def test_zeros_are_fractions_that_float16_holds():
    found = hqq(weights(0), Scheme(4, 32))
    assert found.zero.dtype == np.float32
    assert (found.zero != np.rint(found.zero)).mean() > 0.6
    np.testing.assert_array_equal(found.zero.astype(np.float16).astype(np.float32), found.zero)


def test_eight_bits_keep_whole_zeros():
    found, plain = hqq(weights(1), Scheme(8, 32)), round_to_nearest(weights(1), Scheme(8, 32))
    assert found.zero.dtype.kind == "i"
    np.testing.assert_array_equal(found.codes, plain.codes)


def test_weights_of_zero_stay_zero_and_size_does_not_matter():
    assert not hqq(np.zeros((4, 64), np.float32), Scheme(4, 32)).floats().any()
    small, large = (hqq(weights(2) * 2.0**power, Scheme(3, 32)) for power in (-3, 5))
    np.testing.assert_array_equal(small.codes, large.codes)
    np.testing.assert_array_equal(small.zero, large.zero)


def direct(group, bits):
    """The authors' rounds on one group, number by number: shrink the error, then the zero in closed form."""
    scale = float(np.float32(np.float16((group.max() - group.min()) / (2**bits - 1))))
    zero = float(np.rint(-group.min() / scale))
    found, least, penalty = zero, np.inf, 10.0
    for _ in range(20):
        codes = [min(max(round(w / scale + zero), 0), 2**bits - 1) for w in group]
        errors = [w / scale - (q - zero) for w, q in zip(group, codes, strict=True)]
        loss = sum(abs(e) ** 0.7 for e in errors)
        if loss < least:
            found, least = zero, loss
        kept = [np.sign(e) * max(0.0, abs(e) - 0.7 / penalty * abs(e) ** -0.3) if e else 0.0 for e in errors]
        zero = float(
            np.float16(np.mean([q - (w / scale - e) for q, w, e in zip(codes, group, kept, strict=True)]))
        )
        penalty *= 1.01
    return found


def test_zeros_are_those_of_the_authors_rounds():
    weight = weights(3, 96).astype(np.float64).astype(np.float32)
    for bits in (2, 3):
        found = hqq(weight, Scheme(bits, 32)).zero
        expected = [[direct(row[i : i + 32].astype(float), bits) for i in (0, 32, 64)] for row in weight]
        same = np.isclose(found, expected, atol=0.02)
        assert same.mean() > 0.9  # a tie that float32 breaks otherwise changes the rounds after it

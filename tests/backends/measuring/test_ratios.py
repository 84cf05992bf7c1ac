import numpy as np
import pytest
from graphwright.backends.measuring.ratios import speedup
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

SECONDS = st.lists(st.floats(1e-4, 10), min_size=1, max_size=12)


def test_a_drift_of_the_machine_cancels_out():
    drift = np.array([1.0, 1.3, 2.0, 1.1, 5.0])
    found = speedup(3e-3 * drift, 1.5e-3 * drift)
    assert found.median == found.low == found.high == pytest.approx(2)
    assert found.interval == pytest.approx((2, 2))


@given(SECONDS)
def test_a_contestant_is_as_fast_as_itself(seconds):
    found = speedup(seconds, seconds)
    assert (found.median, found.low, found.high, found.interval) == (1, 1, 1, (1, 1))


@given(SECONDS, st.integers(0, 2**31))
def test_the_numbers_are_in_order_and_repeatable(seconds, seed):
    other = np.random.default_rng(seed).permutation(seconds)
    found = speedup(seconds, other)
    ratios = np.array(seconds) / other
    assert ratios.min() <= found.low <= found.median <= found.high <= ratios.max()
    assert ratios.min() <= found.interval[0] <= found.interval[1] <= ratios.max()
    assert found == speedup(seconds, other)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    """Of 2,000 in 2,000 each; by the binomial distribution 98.4% at 7 rounds and 96.5% at 15. The percentile
    bootstrap that stood here held it in 87% at 7."""
    rng = np.random.default_rng(0)
    for rounds, share in ((7, 0.984), (9, 0.961), (15, 0.965)):
        held = 0
        for _ in range(2000):
            noise = rng.lognormal(0, 0.05, (2, rounds))
            low, high = speedup(1.2 * noise[0], noise[1]).interval
            held += low <= 1.2 <= high
        assert held / 2000 == pytest.approx(share, abs=0.012)


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30))
def test_the_interval_is_that_of_the_sign_test(ratios):
    found = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    assert speedup(ratios, np.ones(len(ratios))).interval == (found.low, found.high)


def test_fewer_than_six_rounds_give_all_that_they_saw():
    assert speedup([3.0, 1.0, 2.0], [1.0, 1.0, 1.0]).interval == (1, 3)


def test_disturbed_rounds_count_only_where_too_few_were_quiet():
    before, after = [2.0, 2.2, 2.1, 9.0, 0.5], np.ones(5)
    quiet, alone = speedup(before, after, [False, False, False, True, True]), speedup(before[:3], after[:3])
    assert (quiet.median, quiet.low, quiet.high) == (alone.median, alone.low, alone.high)
    doubtful = speedup(before, after, [False, False, True, True, True])
    assert (doubtful.median, doubtful.low, doubtful.high) == (2.1, 0.5, 9.0)
    assert doubtful.interval == quiet.interval == (0.5, 9.0)  # three quiet rounds hold a median in 75%


def test_six_quiet_rounds_make_the_interval_alone():
    before = [2.0, 2.2, 2.1, 2.3, 2.4, 2.5, 9.0, 0.5]
    found = speedup(before, np.ones(8), [False] * 6 + [True] * 2)
    assert found == speedup(before[:6], np.ones(6))
    assert found.interval == (2.0, 2.5)

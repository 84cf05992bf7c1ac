import numpy as np
import pytest
from graphwright.backends.measuring.ratios import speedup
from hypothesis import given
from hypothesis import strategies as st

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
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        noise = rng.lognormal(0, 0.05, (2, 15))
        low, high = speedup(1.2 * noise[0], noise[1]).interval
        held += low <= 1.2 <= high
    assert 0.9 <= held / 200 <= 1.0

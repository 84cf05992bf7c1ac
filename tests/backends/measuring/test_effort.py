"""How long measuring is said to take, and that a quick look is a small part of it."""

from graphwright.backends.measuring.effort import QUICK, THOROUGH


def test_more_decisions_workloads_and_slower_calls_take_longer():
    usual = THOROUGH.estimate(8, 3, [0.01, 0.05])
    assert usual < THOROUGH.estimate(9, 3, [0.01, 0.05])
    assert usual < THOROUGH.estimate(8, 4, [0.01, 0.05])
    assert usual < THOROUGH.estimate(8, 3, [0.01, 0.05, 0.01])
    assert usual < THOROUGH.estimate(8, 3, [0.01, 0.5])


def test_a_quick_look_takes_a_fifth_of_the_time():
    for calls in ([0.001] * 4, [0.02] * 4):
        assert 5 * QUICK.estimate(8, 2, calls[:2]) < THOROUGH.estimate(8, 3, calls)


def test_eight_decisions_on_small_calls_by_hand():
    # Three rounds of two turns of a quarter of a second and their warm-up, four workloads; then seven rounds.
    decided = 8 * 4 * (3 * 2 * 1.3 * 0.25 + 0.25)
    assert abs(THOROUGH.estimate(8, 3, [0.001] * 4) - decided - 3 * (7 * 4 * 0.006 + 1)) < 1e-9

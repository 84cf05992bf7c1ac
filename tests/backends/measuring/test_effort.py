"""How long measuring is said to take, and that a quick look is a small part of it."""

from graphwright.backends.measuring.effort import QUICK, THOROUGH


def test_more_decisions_workloads_and_slower_calls_take_longer():
    usual = THOROUGH.estimate(8, 3, [0.01, 0.05])
    assert usual < THOROUGH.estimate(9, 3, [0.01, 0.05])
    assert usual < THOROUGH.estimate(8, 4, [0.01, 0.05])
    assert usual < THOROUGH.estimate(8, 3, [0.01, 0.05, 0.01])
    assert usual < THOROUGH.estimate(8, 3, [0.01, 0.5])


def test_a_quick_look_takes_a_fifth_of_the_time():
    """It decides once, on two workloads, and compares without PyTorch."""
    for calls in ([0.001] * 4, [0.02] * 4):
        assert 5 * QUICK.estimate(1, 2, calls[:2]) < THOROUGH.estimate(8, 3, calls)


def test_eight_decisions_on_small_calls_by_hand():
    # Two warm calls at each of four workloads and a process; three rounds of two turns of a tenth of a
    # second, which settle first; then seven rounds of three contestants' turns, as long.
    began, turn = 4 * 0.002 + 1, 0.13
    decided = 8 * (began + 4 * 3 * 2 * turn)
    assert abs(THOROUGH.estimate(8, 3, [0.001] * 4) - decided - 3 * (began + 7 * 4 * turn)) < 1e-9

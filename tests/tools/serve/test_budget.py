"""Which texts share a call."""

import pytest
from graphwright.tools.serve.budget import Budget
from hypothesis import given
from hypothesis import strategies as st

BUDGETS = st.builds(
    Budget, st.integers(64, 256), st.integers(1, 20), st.booleans(), st.sampled_from([None, 64])
)
LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("budget", "call", "holds"),
    [
        pytest.param(Budget(100), (4, 60, 25), True, id="padded, just full"),
        pytest.param(Budget(100), (4, 60, 26), False, id="padded, the longest makes it too much"),
        pytest.param(Budget(100, packs=True), (4, 100, 50), True, id="packed, real tokens count"),
        pytest.param(Budget(100, packs=True), (4, 101, 30), False, id="packed, too many real tokens"),
        pytest.param(Budget(100, packs=True), (4, 60, 51), False, id="packed, too many places"),
        pytest.param(Budget(100, rows=3), (4, 4, 1), False, id="too many rows"),
        pytest.param(Budget(100, fixed=50), (3, 3, 1), False, id="one length for all"),
    ],
)
def test_what_a_call_holds(budget, call, holds):
    assert budget.holds(*call) is holds


@given(BUDGETS, LENGTHS)
def test_the_oldest_goes_with_its_neighbours_in_length_within_the_budget(budget, lengths):
    chosen = budget.choose(lengths)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    taken = [lengths[i] for i in chosen]
    assert budget.holds(len(taken), sum(taken), max(taken))
    inside = [length for i, length in enumerate(lengths) if i not in chosen]
    assert not any(min(taken) < length < max(taken) for length in inside)


@given(BUDGETS, LENGTHS)
def test_nothing_that_would_fit_beside_them_is_left(budget, lengths):
    chosen = budget.choose(lengths)
    taken = [lengths[i] for i in chosen]
    left = [lengths[i] for i in range(len(lengths)) if i not in chosen]
    shorter = [n for n in left if n <= min(taken)]
    longer = [n for n in left if n >= max(taken)]
    for length in [*([max(shorter)] if shorter else []), *([min(longer)] if longer else [])]:
        assert not budget.holds(len(taken) + 1, sum(taken) + length, max(max(taken), length))

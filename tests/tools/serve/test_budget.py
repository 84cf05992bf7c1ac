"""Which texts share a call."""

import pytest
from graphwright.tools.serve.budget import FEW, PADDING, Budget
from hypothesis import given
from hypothesis import strategies as st

BUDGETS = st.builds(Budget, st.integers(64, 256), st.integers(1, 20), st.sampled_from([None, 64]))
LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=40)


def alike(lengths):
    """Hardly any padding."""
    padding = len(lengths) * max(lengths) - sum(lengths)
    return padding <= max(PADDING * sum(lengths), FEW)


@pytest.mark.parametrize(
    ("budget", "call", "holds"),
    [
        pytest.param(Budget(100), (4, 25), True, id="just full"),
        pytest.param(Budget(100), (4, 26), False, id="the longest makes it too much"),
        pytest.param(Budget(100, rows=3), (4, 1), False, id="too many rows"),
        pytest.param(Budget(100, fixed=50), (3, 1), False, id="one length for all"),
    ],
)
def test_what_a_call_holds(budget, call, holds):
    assert budget.holds(*call) is holds


@pytest.mark.parametrize(
    ("lengths", "chosen"),
    [
        pytest.param([10, 100, 10, 11, 90, 10], [0, 2, 3, 5], id="like with like"),
        pytest.param([100, 10, 101, 90, 10], [0, 2, 3], id="the oldest says what is alike"),
        pytest.param([3, 9, 3, 60], [0, 1, 2], id="few tokens of padding are cheaper than a call"),
        pytest.param([60] * 9, [0, 1, 2, 3, 4], id="the oldest of the same length"),
    ],
)
def test_texts_of_like_length_share_a_call(lengths, chosen):
    assert Budget(320).choose(lengths) == chosen


def test_where_every_row_costs_the_same_any_length_goes():
    assert Budget(320, fixed=64).choose([1, 64, 2, 63, 30]) == [0, 1, 2, 3, 4]


@given(BUDGETS, LENGTHS)
def test_the_oldest_goes_with_its_neighbours_in_length_within_the_budget(budget, lengths):
    chosen = budget.choose(lengths)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    taken = [lengths[i] for i in chosen]
    assert budget.holds(len(taken), max(taken))
    assert budget.fixed or alike(taken)
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
        more = [*taken, length]
        assert not (budget.holds(len(more), max(more)) and (budget.fixed or alike(more)))

"""Dominance: what is on the front is beaten by nothing, and what is not is beaten by a member."""

from graphwright.tools.search.front import front
from graphwright.tools.search.goal import goal
from graphwright.tools.search.tried import Tried
from hypothesis import given, settings
from hypothesis import strategies as st

GOAL = goal("drop<=1", "latency@1x8,size")
VALUES = st.integers(0, 6).map(float)


def trial(number, latency, size, drop, state="complete"):
    return Tried(number, state, {}, values={"latency@1x8": latency, "size": size, "drop": drop})


def trials(rows):
    return [trial(number, *row) for number, row in enumerate(rows)]


def beats(a, b):
    first, second = (GOAL.objectives(one.values) for one in (a, b))
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, st.integers(0, 2).map(float)), max_size=12))
def test_members_are_feasible_beaten_by_nobody_and_beat_or_equal_the_rest(rows):
    every = trials(rows)
    feasible = [one for one in every if one.values["drop"] <= 1]
    found = front(every, GOAL)
    assert all(one in feasible for one in found.members)
    assert not any(beats(a, b) for a in feasible for b in found.members)
    points = [GOAL.objectives(one.values) for one in found.members]
    assert points == sorted(set(points))
    for one in feasible:
        assert one in found.members or any(
            beats(member, one) or GOAL.objectives(member.values) == GOAL.objectives(one.values)
            for member in found.members
        )
    if feasible:
        fastest = next(one for one in every if one.number == found.best["latency@1x8"])
        assert fastest.values["latency@1x8"] == min(one.values["latency@1x8"] for one in feasible)
        assert found.nearest is None


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_front_does_not_depend_on_the_order_of_trials(order):
    every = trials([(1, 5, 0), (2, 3, 0), (2, 3, 1), (4, 1, 0), (4, 2, 0), (0, 0, 2)])
    assert [one.number for one in front([every[i] for i in order], GOAL).members] == [0, 1, 3]


def test_where_nothing_keeps_the_goal_the_nearest_is_named_with_its_distance():
    found = front(trials([(1, 1, 4.0), (9, 9, 1.5), (1, 1, 3.0)]), GOAL)
    assert (found.members, found.nearest.number, found.distance) == ((), 1, 0.5)
    assert found.kept == (1,)


def test_only_what_was_measured_counts():
    every = [trial(0, 1, 1, 0, "pruned"), trial(1, 0, 0, 0, "same"), trial(2, 5, 5, 0)]
    assert [one.number for one in front(every, GOAL).members] == [2]
    assert front(every[:2], GOAL).kept == ()

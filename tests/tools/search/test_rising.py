"""Little training first, and more for what would be on the front if it had lost less."""

from dataclasses import replace

import pytest
from graphwright.passes.manager.varying import Between
from graphwright.tools.search.goal import goal
from graphwright.tools.search.rising import lowest, rise
from graphwright.tools.search.space import Space
from graphwright.tools.search.tried import Tried
from pretend_search import record, run

STEPS = Between(100, 3000, log=True, rising=True)
SPACE = Space(
    {
        "structure": ("none", "prune-layers"),
        "prune-layers.keep": Between(1, 11),
        "recovery": ("none", "distill"),
        "distill.steps": STEPS,
        "runtime": ("onnxruntime",),
    },
    "fx",
)
GOAL = goal("drop<=1", "latency,size").at(("1x8",))


def tried(number, drop, latency, steps=100, size=10.0, state="complete", recovery="distill", keep=None):
    chosen = {
        "structure": "prune-layers",
        "prune-layers.keep": number if keep is None else keep,
        "recovery": recovery,
        "distill.steps": steps,
        "runtime": "onnxruntime",
    }
    values = {"drop": drop, "latency@1x8": latency, "size": size}
    return Tried(number, state, chosen, "prune-layers", "onnxruntime", values)


def gone_on(known, aim=GOAL, space=SPACE):
    """The layers and the steps of the point to go on with."""
    found = rise(known, aim, space)
    return found and (found["prune-layers.keep"], found["distill.steps"])


def test_a_point_begins_with_the_least():
    assert lowest(STEPS) == replace(STEPS, high=100)
    assert lowest(Between(1, 11)) == Between(1, 11)
    assert lowest(("a", "b")) == ("a", "b")


def test_the_nearest_to_the_goal_goes_on_first_with_nothing_else_changed():
    known = [tried(1, 3.0, 2.0), tried(2, 1.5, 3.0), tried(3, 0.5, 9.0)]
    assert rise(known, GOAL, SPACE) == {**known[1].choices, "distill.steps": 400}


def test_then_the_next_but_not_two_in_a_row():
    known = [tried(1, 3.0, 2.0), tried(2, 1.5, 3.0), tried(3, 1.2, 3.0, steps=400, keep=2)]
    assert gone_on(known) is None  # the last one went on
    assert gone_on([*known, tried(4, 0.5, 9.0)]) == (2, 1600)
    running = replace(tried(5, 0.0, 0.0, steps=1600, keep=2), state="running", values={})
    assert gone_on([*known, running, tried(6, 0.5, 9.0)]) == (1, 400)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(tried(1, 0.9, 2.0), id="it keeps the goal"),
        pytest.param(tried(1, 1.5, 9.0, size=20.0), id="another is better in all else and keeps it"),
        pytest.param(tried(1, 1.5, 2.0, recovery="none"), id="nothing is taught"),
        pytest.param(tried(1, 1.5, 2.0, state="pruned"), id="it was not measured"),
        pytest.param(tried(1, 1.5, 2.0, steps=1600), id="there are no more steps"),
    ],
)
def test_nothing_goes_on_where(one):
    assert gone_on([one, tried(2, 0.5, 9.0)]) is None


def test_another_limit_that_is_not_kept_is_not_won_back():
    assert (
        gone_on([tried(1, 1.5, 2.0), tried(2, 0.5, 9.0)], goal("drop<=1, size<=5", "latency").at(("1x8",)))
        is None
    )


def test_where_losses_are_to_become_small_the_front_goes_on():
    known = [tried(1, 3.0, 2.0), tried(2, 4.0, 3.0), tried(3, 1.0, 9.0)]
    aim = goal("", "latency,drop").at(("1x8",))
    assert gone_on(known, aim) == (1, 400)
    assert gone_on([*known, tried(4, 0.9, 8.0, steps=400, keep=1), tried(5, 9.0, 9.0)], aim) == (1, 1600)


def test_hopeless_ones_stay():
    won = [tried(1, 5.0, 5.0), tried(2, 4.0, 6.0), tried(3, 3.0, 7.0)]
    more = [
        tried(10 + number, one.values["drop"] - 2.0, one.values["latency@1x8"], steps=400, keep=number)
        for number, one in enumerate(won, 1)
    ]
    left = tried(20, 4.0, 1.0)
    done = tried(21, 0.5, 9.0)
    assert gone_on([left, *more[2:], done]) == (20, 400)
    after = [*won, *more, left, done]  # 3 - 2 keeps the goal and beats what is slower; 4 - 3 just would
    assert gone_on(after) == (2, 1600)
    nearer = [replace(one, values={**one.values, "drop": 0.9}) for one in more]
    hopeless = replace(left, values={**left.values, "drop": 1.0 + 1.5 * 4.1 + 0.01})
    assert gone_on([*won, *nearer, left, done]) == (20, 400)
    assert gone_on([*won, *nearer, hopeless, done]) is None


def test_a_narrowed_range_is_gone_through_from_its_own_least():
    narrow = replace(
        SPACE, dimensions={**SPACE.dimensions, "distill.steps": replace(STEPS, low=150, high=700)}
    )
    assert gone_on([tried(1, 1.5, 2.0, steps=150)], space=narrow) == (1, 600)
    assert gone_on([tried(1, 1.5, 2.0, steps=600), tried(2, 0.5, 9.0, steps=150)], space=narrow) is None
    fixed = replace(SPACE, dimensions={**SPACE.dimensions, "distill.steps": (100, 400)})
    assert gone_on([tried(1, 1.5, 2.0)], space=fixed) is None


def test_a_search_goes_on_with_what_it_sampled_and_samples_the_least_alone(tmp_path):
    def figures(candidate):
        """Fewer layers are faster and lose more, of which four times the steps win back half."""
        chosen = candidate.choices
        layers = chosen.get("prune-layers.keep", 12)
        lost = (12 - layers) * 10 * chosen.get("distill.steps", 1) ** -0.5
        return {"latency@1x8": layers, "size": layers, "drop": lost}

    run(tmp_path, 40, figures=figures)
    trials, members, _ = record(tmp_path)
    steps = [one["choices"]["distill.steps"] for one in trials]
    assert set(steps) <= {100, 400, 1600}
    risen = [number for number, one in enumerate(steps) if one > 100]
    assert len(risen) > 1
    assert not any(number + 1 in risen for number in risen)
    for number in risen:
        before = {**trials[number]["choices"], "distill.steps": steps[number] // 4}
        (lower,) = [one for one in trials[:number] if one["choices"] == before]
        assert lower["state"] == "complete"
        assert lower["values"]["drop"] > 2  # GOAL's
    assert any(number in risen for number in members)

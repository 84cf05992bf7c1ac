"""What is left early: structures that are foretold to be beaten, what lost too much to win back."""

from types import SimpleNamespace

import pytest
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.search.early import lost
from graphwright.tools.search.goal import goal
from graphwright.tools.search.making import Candidate
from graphwright.tools.search.structures import Structures
from graphwright.tools.search.tried import Tried

GOAL = goal("drop<=1", "latency,size").at(("1x8",))
TIMES = [{0: 0.3, 2: 0.15, 4: 0.0}, {0: 0.4, 64: 0.0}]
LOST = [{0: 5.0, 2: 1.0, 4: 0.0}, {0: 4.0, 64: 0.0}]


def structures(times=TIMES, lost=LOST):
    found = Structures(None, GOAL)
    found._search = SimpleNamespace(times=times, lost=lost)
    return found


def choices(first, second, **more):
    keep = {"prune-structure.keep.0": first, "prune-structure.keep.1": second}
    return {"structure": "prune-structure", "bits": "none", "runtime": "onnxruntime", **keep, **more}


def candidate(chosen):
    return Candidate(9, Pipeline([]), "onnxruntime", chosen)


def tried(chosen, state="complete"):
    return Tried(3, state, {**chosen, "distill.steps": 200}, "prune-structure", "onnxruntime")


def test_structures_are_forecast_by_the_table_and_the_losses():
    found = structures().forecast((2, 0))
    assert (found.saved, found.lost) == (pytest.approx(0.55), 5.0)
    assert structures().forecast((3, 0)) is None
    assert structures().forecast((2, 0, 1)) is None


def test_the_first_structures_lose_least_for_their_speed_up():
    """1.5 times: (4, 0) saves 0.4 and loses 4. 2 times: 0.55 and 5. 3 times: 0.7 and 9. Not 4."""
    assert structures().first() == [(4, 0), (2, 0), (0, 0)]


def test_a_structure_that_another_is_foretold_to_beat_is_not_built():
    faster_and_better = choices(2, 0)  # saves 0.55, loses 5
    worse = choices(0, 64)  # saves 0.3, loses 5
    lost = [{0: 7.0, 2: 1.0, 4: 0.0}, {0: 4.0, 64: 0.0}]
    found = structures(lost=lost)
    assert "slower than trial 3 and to lose more" in found.hopeless(
        candidate(worse), [tried(faster_and_better)]
    )
    assert found.hopeless(candidate(faster_and_better), [tried(worse)]) == ""
    assert found.hopeless(candidate(worse), [tried(faster_and_better, "refused")]) == ""


def test_structures_are_held_against_those_alone_that_differ_in_nothing_else():
    lost = [{0: 7.0, 2: 1.0, 4: 0.0}, {0: 4.0, 64: 0.0}]
    rival = tried(choices(2, 0, bits="quantize-static"))
    assert structures(lost=lost).hopeless(candidate(choices(0, 64)), [rival]) == ""
    plain = {"structure": "none", "bits": "none", "runtime": "onnxruntime"}
    assert structures().hopeless(candidate(plain), [tried(choices(2, 0))]) == ""


def recovered(number, steps, drop, layers=3):
    chosen = {"structure": "prune-layers", "prune-layers.keep": layers, "distill.steps": steps}
    return Tried(number, "complete", chosen, values={"drop": drop})


GONE_ON = [
    recovered(0, 100, 5.0, 3), recovered(1, 400, 2.0, 3), recovered(2, 1600, 1.5, 3),
    recovered(3, 100, 9.0, 2), recovered(4, 400, 5.0, 2),
]  # fmt: skip


def test_what_lost_far_too_much_is_not_timed():
    assert lost(2.0, {}, [], GOAL) == ""
    assert lost(2.1, {}, [], GOAL) == "2.1 points are lost, and 1 may be"
    assert lost(50.0, {}, [], goal("size<=1")) == ""


def test_what_longer_training_may_win_back_is_timed_until_three_that_went_on_say_that_it_does_not():
    taught = {"recovery": "distill", "distill.steps": 100}
    assert lost(50.0, taught, GONE_ON[:4], GOAL) == ""  # two went on
    assert lost(7.0, taught, GONE_ON, GOAL) == ""  # 1.5 times the most that was won back, 4, are 6
    assert lost(7.1, taught, GONE_ON, GOAL).endswith("may be, more than longer training won back elsewhere")
    assert lost(7.0, {**taught, "distill.steps": 1600}, GONE_ON, GOAL)  # there is no more

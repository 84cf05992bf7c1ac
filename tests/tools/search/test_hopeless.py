"""What is left early: structures that are foretold to be beaten, recoveries too weak, lost points."""

from types import SimpleNamespace

import pytest
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.search.early import SHORT, Early
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
    """1.25 and 1.5 times: (4, 0) saves 0.4 and loses 4. 2 times: 0.55 and 5. 3 times: 0.7 and 9. Not 4."""
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


def recovered(number, early, drop):
    return Tried(number, "complete", {}, values={Early.KEY: early, "drop": drop})


def test_a_recovery_is_hopeless_by_what_others_gained_and_not_before_there_are_three():
    early = Early(GOAL)
    known = [recovered(0, 4.0, 1.0), recovered(1, 3.0, 1.5), recovered(2, 6.0, 2.0)]
    assert early.hopeless(50.0, known[:2]) == ""
    assert early.hopeless(7.0, known) == ""  # 1.5 times the best gain, 4, wins back 6
    assert f"7.1 points are lost after {SHORT} steps" in early.hopeless(7.1, known)


def test_what_lost_far_too_much_is_not_timed():
    assert Early(GOAL).lost(2.0) == ""
    assert Early(GOAL).lost(2.1) == "2.1 points are lost, and 1 may be"
    assert Early(goal("size<=1")).lost(50.0) == ""

"""The record of a search: what was killed goes on where it was, and nothing is mixed with what it is not."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.search.goal import goal
from graphwright.tools.search.making import found
from pretend_cluster import WIDE
from pretend_search import GOAL, SPACE, Lanes, figures, record, run

TRIALS = 24


def killed(folder, moments, sampler, *more):
    line = [sys.executable, str(Path(__file__).parents[2] / "support" / "pretend_search.py")]
    done = subprocess.run(
        [*line, str(folder), str(TRIALS), json.dumps(moments), sampler, *more],
        capture_output=True, text=True, timeout=300, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "kills"), [("tpe", 20), ("nsga2", 5)])
def test_killed_at_any_moment_it_ends_as_unbroken(tmp_path, sampler, kills):
    """Commits before and after, evaluations, bundles half-written and whole: SIGKILL at any of them."""
    rng = random.Random(sampler)
    whole = killed(tmp_path / "whole", [], sampler)
    moments = [rng.randrange(1, 45) for _ in range(kills)]
    evaluated = killed(tmp_path / "broken", moments, sampler)
    assert record(tmp_path / "broken") == record(tmp_path / "whole")
    assert set(evaluated) == set(whole)
    assert len(evaluated) <= len(whole) + len(moments)  # again is only what a kill cut off
    assert evaluated == sorted(evaluated, key=lambda name: int(name.split()[1]))
    trials, members, bundles = record(tmp_path / "broken")
    assert [one["number"] for one in trials] == list(range(TRIALS))
    assert not any(one["state"] == "running" for one in trials)
    assert sorted(map(str, members)) == bundles
    assert sorted(path.name for path in (tmp_path / "broken" / "members").iterdir()) == [
        f"{number:04d}" for number in sorted(members)
    ]


@pytest.mark.slow
def test_several_at_once_killed_at_any_moment_end_as_unbroken(tmp_path):
    """Whichever is ready first, before a kill and after it."""
    rng = random.Random(4)
    whole = killed(tmp_path / "whole", [], "tpe", "lanes")
    moments = [rng.randrange(12, 60) for _ in range(10)]
    evaluated = killed(tmp_path / "broken", moments, "tpe", "lanes")
    assert record(tmp_path / "broken") == record(tmp_path / "whole")
    assert set(evaluated) == set(whole)
    assert len(evaluated) <= len(whole) + 4 * len(moments)


def test_several_at_once_decide_the_same_whichever_is_ready_first(tmp_path):
    asked, lanes = [], []

    def workers(seed, losing):
        return lambda evaluate: lanes.append(Lanes(evaluate, seed, losing)) or lanes[-1]

    run(tmp_path / "a", TRIALS, asked.append, workers=workers(0, 0.0), space=WIDE)
    run(tmp_path / "b", TRIALS, workers=workers(1, 0.3), space=WIDE)
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert [each.most for each in lanes] == [4, 4]
    trials, members, bundles = record(tmp_path / "a")
    assert sorted(map(str, members)) == bundles
    made = [one["number"] for one in trials if one["state"] in ("complete", "pruned")]
    assert sorted(name for name in asked if name.startswith("evaluate")) == sorted(
        f"evaluate {number}" for number in made
    )
    assert len({trials[number]["pipeline"] for number in made}) == len(made)


def test_a_trial_is_decided_from_those_that_are_told_before_it_begins(tmp_path):
    seen = {}

    class Watched(Lanes):
        def start(self, candidate, known):
            seen[candidate.number] = [one.number for one in known]
            super().start(candidate, known)

    run(tmp_path / "s", TRIALS, workers=Watched, space=WIDE)
    assert seen
    for number, known in seen.items():
        assert known == list(range(number - 3)), number


def test_a_trial_whose_workers_are_lost_is_given_up(tmp_path):
    fatal = []

    class Losing(Lanes):
        def wait(self):
            candidate, known = self.begun.pop(0)
            fatal.append(candidate.number) if not fatal else None
            lost = candidate.number == fatal[0]
            return candidate.number, None if lost else found(self.evaluate, candidate, known)

    run(tmp_path / "s", 6, workers=Losing, space=WIDE)
    trials, _, _ = record(tmp_path / "s")
    given_up = [one for one in trials if "was killed 5 times" in (one["why"] or "")]
    assert [(one["number"], one["state"]) for one in given_up] == [(fatal[0], "refused")]
    assert not any(one["state"] == "running" for one in trials)


def test_an_interrupted_search_of_several_keeps_what_was_found(tmp_path):
    asked = []

    class Interrupted(Lanes):
        def wait(self):
            if len(self.begun) == 1:
                raise KeyboardInterrupt
            candidate, known = self.begun.pop()  # the last first, so that none is told
            asked.append(candidate.number)
            return candidate.number, found(self.evaluate, candidate, known)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", 8, workers=Interrupted, space=WIDE)
    assert asked
    assert all(one["state"] == "running" for one in record(tmp_path / "s")[0])
    again = []
    run(tmp_path / "s", 8, again.append, workers=Lanes, resume=True, space=WIDE)
    assert not {f"evaluate {number}" for number in asked} & set(again)
    run(tmp_path / "whole", 8, workers=Lanes, space=WIDE)
    assert record(tmp_path / "s") == record(tmp_path / "whole")


def test_what_was_found_but_not_told_is_not_looked_for_again(tmp_path, monkeypatch):
    run(tmp_path / "s", 1)
    from graphwright.tools.search.study import Study

    def cut(self, asked, found):
        asked.trial.set_user_attr("tried", found.to_json())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "tell", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "s", 2, resume=True)
    asked = []
    run(tmp_path / "s", 2, asked.append, resume=True)
    assert [name for name in asked if name.startswith("evaluate")] == []
    assert len(record(tmp_path / "s")[0]) == 2


def test_a_space_that_is_tried_out_ends_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr("graphwright.tools.search.explore.IDLE", 12)
    two = {"bits": ("none", "quantize-static"), "quantize-static.min_cosine": (0.99,)}
    few = replace(SPACE, dimensions={**two, "runtime": ("onnxruntime",)})
    run(tmp_path / "s", None, space=few)
    trials, _, _ = record(tmp_path / "s")
    assert sum(one["state"] in ("complete", "pruned") for one in trials) == 2
    assert [one["state"] for one in trials[-12:]] == ["same"] * 12


def test_a_trial_that_kills_its_process_is_given_up(tmp_path):
    import os
    import signal

    from pretend_search import killed

    def fatal(name):
        if name == "evaluate 0":
            os.kill(os.getpid(), signal.SIGKILL)

    lives = sum(killed(tmp_path / "s", 3, fatal) for _ in range(8))
    assert lives == 5
    first, *others = record(tmp_path / "s")[0]
    assert (first["state"], len(others)) == ("refused", 2)
    assert "was killed 5 times" in first["why"]


def test_what_goes_wrong_in_a_library_or_has_no_figures_is_refused_and_the_search_goes_on(tmp_path):
    def moment(name):
        if name == "evaluate 0":
            raise TypeError("unsupported operand\n here")

    run(tmp_path / "s", 3, moment)
    first, *others = record(tmp_path / "s")[0]
    assert (first["state"], first["why"]) == ("refused", "unexpected TypeError: unsupported operand here")
    assert len(others) == 2
    strange = {"latency@1x8": 1.0, "size": 1.0, "drop": float("nan")}
    run(tmp_path / "t", 1, figures=lambda candidate: strange)
    assert record(tmp_path / "t")[0][0]["why"] == "its drop is nan"


def test_the_same_seed_decides_the_same_and_another_one_differently(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, 8, seed=seed)
    first, second, third = (record(tmp_path / name) for name in "abc")
    assert first == second
    assert first != third


def test_equal_candidates_are_made_once_and_forbidden_ones_never(tmp_path):
    asked = []
    run(tmp_path / "s", TRIALS, asked.append)
    trials, _, _ = record(tmp_path / "s")
    evaluated = [one for one in trials if one["state"] in ("complete", "pruned")]
    assert [name for name in asked if name.startswith("evaluate")] == [
        f"evaluate {one['number']}" for one in evaluated
    ]
    assert len({one["pipeline"] for one in evaluated}) == len(evaluated)
    refused = [one for one in trials if one["state"] == "refused"]
    assert refused
    assert all("is of no use on onnxruntime" in one["why"] for one in refused)
    for one in trials:
        if one["state"] == "same":
            assert one["pipeline"] == trials[one["same_as"]]["pipeline"]
            assert one["values"] == trials[one["same_as"]]["values"]


def test_values_and_bundles_are_those_of_the_front(tmp_path):
    found = run(tmp_path / "s", TRIALS)
    for one in found.members:
        written = json.loads((tmp_path / "s" / "members" / f"{one.number:04d}" / "values.json").read_text())
        assert written == one.values
        assert one.values["drop"] <= 2


def test_best_keeps_one_bundle(tmp_path):
    found = run(tmp_path / "s", TRIALS, best="size")
    assert [path.name for path in (tmp_path / "s" / "members").iterdir()] == [f"{found.best['size']:04d}"]
    with pytest.raises(ConfigError, match="best: 'sise' is not minimised; did you mean 'size'"):
        run(tmp_path / "t", 1, best="sise")


def test_where_nothing_meets_the_goal_the_nearest_is_kept(tmp_path):
    hard = goal("size<=1, drop<=2", "latency,size").at(("1x8",))
    found = run(tmp_path / "s", 6, goal=hard)
    assert found.members == ()
    stored = json.loads((tmp_path / "s" / "front.json").read_text())
    assert (stored["met"], stored["nearest"]) == (False, found.nearest.number)
    assert stored["distance"] == pytest.approx(hard.distance(found.nearest.values))
    assert list(stored["bundles"]) == [str(found.nearest.number)]


def test_a_shared_storage_is_found_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    run(tmp_path / "s", 3, storage=url)
    run(tmp_path / "s", 5, storage=url, resume=True)
    run(tmp_path / "alone", 5)
    assert record(tmp_path / "s") == record(tmp_path / "alone")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "holds a search already: --resume goes on with it"),
        ({"resume": True, "identity": {"model": "other"}}, "is of another model (pretended, now other)"),
        ({"resume": True, "folder": "none"}, "there is no search in"),
        ({"storage": "postgresql://nobody@localhost:1/none"}, "can't be reached"),
        ({"storage": "sqlite:////proc/none/study.db"}, "can't be reached: unable to open database file"),
        ({"storage": "nonsense"}, "can't be reached: Could not parse"),
    ],
)
def test_what_no_search_can_go_on_with_is_refused(tmp_path, options, sentence):
    run(tmp_path / "s", 1)
    before = (tmp_path / "s" / "front.json").read_bytes()
    options = dict(options)
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / options.pop("folder", "s"), 2, **options)
    assert sentence in str(caught.value)
    assert (tmp_path / "s" / "front.json").read_bytes() == before


def test_a_bundle_is_not_kept_for_what_is_beaten(tmp_path):
    run(tmp_path / "s", TRIALS)
    trials, members, _ = record(tmp_path / "s")
    best = [trials[number]["values"] for number in members]
    for one in trials:
        if one["state"] == "complete" and GOAL.distance(one["values"]) == 0:
            mine = GOAL.objectives(one["values"])
            assert any(
                all(a <= b for a, b in zip(GOAL.objectives(other), mine, strict=True)) for other in best
            )


def test_pretended_figures_pull_in_two_directions():
    class Small:
        pipeline, choices = "distill", {"bits": "none", "prune-layers.keep": 6, "distill.steps": 300}

    assert figures(Small)["latency@1x8"] == 6.0
    assert figures(Small)["drop"] == pytest.approx(6 * 0.2 - 0.1)

"""A deployment's cases: every model for every target with every goal, what stands later wins."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.deploy import plan, schema
from hypothesis import given, settings
from hypothesis import strategies as st

WHOLE = {
    "defaults": {"threads": 1, "shapes": ["1x4"], "preset": "exact"},
    "models": {"a": "x.onnx", "b": {"model": "y", "pipeline": "to-onnx", "seed": 3}},
    "targets": {"here": "host", "old": {"target": "x86-64-avx2"}},
    "goals": {"fast": {"preset": "fast", "require": {"drop": "<=0.5"}}, "plain": {}},
    "overrides": [{"models": "b", "targets": "old", "skip": True}],
}


def _cases(**changed):
    return {case.name: case for case in plan.cases(schema.of({**WHOLE, **changed}))}


def test_every_model_meets_every_target_and_goal_but_those_that_are_skipped():
    found = _cases()
    names = ["a-here-fast", "a-here-plain", "a-old-fast", "a-old-plain", "b-here-fast", "b-here-plain"]
    assert list(found) == names
    assert found["a-old-fast"].config.target == "x86-64-avx2"
    assert found["a-old-fast"].parts == ("a", "old", "fast")


def test_what_stands_later_wins_and_a_preset_takes_a_pipelines_place():
    found = _cases()
    assert found["b-here-fast"].config.preset == "fast"
    assert found["b-here-fast"].config.pipeline is None
    assert found["b-here-plain"].config.pipeline == "to-onnx"
    assert found["b-here-plain"].config.preset is None
    assert (found["b-here-plain"].config.seed, found["a-here-plain"].config.seed) == (3, 0)
    over = _cases(overrides=[{"models": "a", "goals": ["f*"], "seed": 9, "preset": "small"}])
    assert (over["a-here-fast"].config.seed, over["a-here-fast"].config.preset) == (9, "small")
    assert over["a-here-plain"].config.seed == 0


def test_a_budget_of_quality_is_the_goal_of_the_run():
    assert _cases()["a-here-fast"].config.max_drop == 0.5
    own = {"fast": {"max-drop": 0.1, "require": {"drop": "<=0.5"}}}
    assert _cases(goals=own)["a-here-fast"].config.max_drop == 0.1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"targets": {"t": "x86-64-avx3"}, "overrides": []}, "a-t-fast: there is no target 'x86-64-avx3'"),
        ({"overrides": [{"models": "c"}]}, "overrides, 1: models has no 'c'; there are: a, b"),
        ({"overrides": [{"skip": True}]}, "overrides leave no build"),
        (
            {"models": {"a": "x", "a-b": "y"}, "targets": {"b-c": "host", "c": "host"}, "overrides": []},
            "two builds are named a-b-c-fast",
        ),
        (
            {"goals": {"g": {"require": {"p95@1x5": "<=1ms"}}}},
            "a-here-g: p95@1x5 <=1ms is about a shape that is not measured; did you mean '1x4'?",
        ),
        ({"goals": {"g": {"task": "similarity"}}}, "a-here-g: task describes a data file"),
    ],
)  # fmt: skip
def test_cases_that_cannot_be_are_refused_by_name(changed, sentence):
    with pytest.raises(ConfigError) as caught:
        _cases(**changed)
    assert sentence in str(caught.value)


def test_only_takes_names_of_builds_and_of_their_parts():
    found = tuple(_cases().values())
    assert [each.name for each in plan.only(found, ["old"])] == ["a-old-fast", "a-old-plain"]
    assert [each.name for each in plan.only(found, ["b-*-plain", "a-here-fast"])] == [
        "a-here-fast",
        "b-here-plain",
    ]
    with pytest.raises(ConfigError, match="there is no build 'a-here-fats'; did you mean 'a-here-fast'"):
        plan.only(found, ["a-here-fats"])


def test_a_device_is_timed_on_only_by_tvm():
    target = {"backend": "tvm", "target": "aarch64-neon", "rpc": "h:1", "device": "pi"}
    found = _cases(targets={"pi": target}, overrides=[])
    assert found["a-pi-fast"].remote == plan.Remote("h:1", "pi")
    with pytest.raises(ConfigError, match="only TVM's builds are timed"):
        _cases(targets={"pi": target}, overrides=[], goals={"g": {"backend": "onnxruntime"}})


_NAMES = st.lists(st.from_regex(r"[a-z]{1,3}", fullmatch=True), min_size=1, max_size=3, unique=True)


@settings(max_examples=50, deadline=None)
@given(models=_NAMES, targets=st.just([]) | _NAMES, goals=st.just([]) | _NAMES)
def test_there_are_as_many_cases_as_combinations_each_a_run_that_reads_back(models, targets, goals):
    file = {
        "models": dict.fromkeys(models, "m.onnx"),
        "targets": dict.fromkeys(targets, "host"),
        "goals": {name: {"seed": number} for number, name in enumerate(goals)},
    }
    found = plan.cases(schema.of({name: each for name, each in file.items() if each}))
    assert len(found) == len(models) * max(1, len(targets)) * max(1, len(goals))
    for case in found:
        assert schema.of(plan.settings_of(case.config)).models["build"].seed == case.config.seed

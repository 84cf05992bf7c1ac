"""A run as a file: checked, resolved, and the same when read back."""

import os

import pytest
import yaml
from graphwright.tools import config
from graphwright.tools.options import OPTIONS, settings


def test_what_is_written_reads_back_as_the_same_run(tmp_path):
    run = config.make(
        {
            "model": "models/é",
            "out": "bundle",
            "pipeline": "specialise-shapes{batch=1},to-onnx{opset=18}",
            "data": "x.csv",
            "task": "similarity",
            "columns": {"text": "a", "pair": 2},
            "max-drop": 0.5,
            "shapes": ["1x16", "mixed:4"],
            "seed": 7,
        }
    )
    resolved = config.resolve(run)
    path = tmp_path / "run.yaml"
    path.write_text(resolved.to_yaml(), "utf-8")
    again = config.make(config.read(path))
    assert again == resolved
    assert config.resolve(again) == resolved
    assert again.columns == {"text": "a", "pair": 2}
    assert again.threads is not None


def test_the_balanced_preset_is_the_default_unless_a_pipeline_is_given():
    assert config.resolve(config.make({"model": "m"})).preset == "balanced"
    assert config.resolve(config.make({"model": "m", "pipeline": "fold-constants"})).preset is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "m", "treads": 2}, "unknown setting 'treads'; did you mean 'threads'?"),
        ({"model": "m", "max_drop": 1}, "unknown setting 'max_drop'; did you mean 'max-drop'?"),
        ({"out": "o"}, "model: is required"),
        (
            {"model": "m", "preset": "fats"},
            "preset: input should be 'exact', 'bfloat16', 'balanced', 'fast' or 'small'",
        ),
        ({"model": "m", "seed": -1}, "seed: input should be greater than or equal to 0 (given: -1)"),
        ({"model": "m", "shapes": ["8*128"]}, "'8*128' is no shape"),
        ({"model": "m", "shapes": ["0x128"]}, "'0x128' is no shape"),
        ({"model": "m", "preset": "fast", "pipeline": "cse"}, "exclude each other"),
        ({"model": "m", "task": "similarity"}, "task describes a data file"),
        (
            {"model": "m", "data": "d.csv", "columns": {"txt": "a"}},
            "columns: 'txt' is no role of a column; did you mean 'text'?",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(settings, sentence):
    with pytest.raises(config.ConfigError) as caught:
        config.make(settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("a: [", "is not YAML"), ("- 1", "must hold settings"), ("", "must hold settings")],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, sentence):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(config.ConfigError, match=sentence):
        config.read(path)
    with pytest.raises(config.ConfigError, match="no such configuration file"):
        config.read(tmp_path / "absent.yaml")


def test_the_file_has_the_long_options_as_its_keys():
    written = yaml.safe_load(config.resolve(config.make({"model": "m", "max-drop": 1})).to_yaml())
    assert {"model", "preset", "max-drop", "threads", "seed", "target"} <= written.keys()


def test_python_may_spell_settings_as_the_command_does(tmp_path):
    spelled = config.make(
        {
            "model": tmp_path / "m", "out": tmp_path / "o", "shapes": "1x8, mixed:4", "threads": "2",
            "data": tmp_path / "d.csv", "columns": "text=a, label=2", "max-drop": "0.5", "samples": "10",
        }
    )  # fmt: skip
    assert spelled.shapes == ("1x8", "mixed:4")
    assert (spelled.threads, spelled.max_drop, spelled.samples) == (2, 0.5, 10)
    assert spelled.columns == {"text": "a", "label": "2"}
    assert (spelled.model, spelled.out) == (str(tmp_path / "m"), str(tmp_path / "o"))
    assert config.make({"model": "m", "shapes": [1, "8x8"]}).shapes == ("1", "8x8")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "m", "shapes": []}, "shapes: name at least one shape"),
        ({"model": "m", "shapes": {"a": 1}}, "shapes: name shapes as text"),
        ({"model": "m", "shapes": [str(n) for n in range(1, 99)]}, "98 shapes are too many"),
        ({"model": "m", "shapes": [None]}, "'None' is no shape"),
        ({"model": "m", "data": "d.csv", "columns": "text"}, "write role=column"),
        ({"model": "m", "data": "d.csv", "columns": "text=a,text=b"}, "each role has one column"),
        ({"model": "m\0"}, "model: a path holds no NUL character"),
        ({"model": "m", "threads": True}, "threads: input should be a number (given: True)"),
        ({"model": "m", "preset": 10**5000}, "preset: input should be 'exact'"),
        ({"model": "m", "out": [["x" * 9999] * 9999] * 9999}, "out: input should be a valid string"),
        ({1: 2}, "unknown setting 1"),
    ],
)
def test_settings_of_every_type_are_named_in_a_short_sentence(settings, sentence):
    with pytest.raises(config.ConfigError) as caught:
        config.make(settings)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: " + "[" * 4000, "it is nested too deeply, over 10 levels"),
        ("- " * 30000, "it is nested too deeply, over 10 levels"),
        ("a: [" + "[]," * 20000 + "]", "it holds over 10,000 values"),
        ("b: &b {seed: 1}\n<<: [*b, *b]", "it merges mappings"),
        ("seed: " + "9" * 5000, "is not YAML: "),
        ("a: !!timestamp foo", "is not YAML"),
        ("a: !!bool foo", "is not YAML"),
        ("a: 2001-99-99", "is not YAML"),
        ("a: " + "x" * (1 << 16), "larger than 0.0625 MB"),
        ("a: &a [1, 2]\n? *a\n: 1", "is not YAML"),
    ],
)
def test_a_file_that_yaml_trips_over_is_refused(tmp_path, content, sentence):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(config.ConfigError, match=sentence):
        config.make(config.read(path))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(config.ConfigError, match="not a regular file"):
        config.read(tmp_path / "run.yaml")
    with pytest.raises(config.ConfigError, match="a directory"):
        config.read(tmp_path)


def test_every_setting_is_an_option_of_the_command():
    assert {"model", *OPTIONS} == set(config.RunConfig.model_fields)


def test_zeros_are_given():
    assert settings({"max_drop": 0.0, "seed": 0, "quick": False, "out": None}) == {"max-drop": 0.0, "seed": 0}

"""A run as a file: checked, resolved, and the same when read back."""

import pytest
import yaml
from graphwright.tools import config


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
        ({"model": "m", "preset": "fats"}, "preset: input should be 'exact', 'balanced', 'fast' or 'small'"),
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

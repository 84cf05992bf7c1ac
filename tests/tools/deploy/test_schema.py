"""What a deployment's file may hold, and one sentence on what it may not."""

import json

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.config import RunConfig
from graphwright.tools.deploy import schema


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"modles": {}}, "unknown section 'modles'; did you mean 'models'?"),
        ({}, "models: name at least one"),
        ({"models": {}}, "models: write at least one"),
        ({"models": {"a": {}}}, "models.a: model: is required"),
        (
            {"models": {"a": {"model": "x", "shaeps": 1}}},
            "models.a: unknown setting 'shaeps'; did you mean 'shapes'?",
        ),
        ({"models": {"a b": "x"}}, "models: 'a b' is no name"),
        ({"models": {"a": 7}}, "models.a: write settings"),
        ({"models": {"a": {"model": "x", "out": "o"}}}, "models.a: out is no setting of a deployment"),
        ({"models": {"a": "x"}, "goals": {"g": {"preset": "fats"}}}, "goals.g: preset: input should be"),
        ({"models": {"a": "x"}, "targets": {"t": {"rpc": "h:1"}}}, "targets.t: write both rpc"),
        (
            {"models": {"a": "x"}, "targets": {"t": {"rpc": "h:1", "device": "pi"}}},
            "targets.t: only TVM's builds are timed on a device",
        ),
        ({"models": {"a": "x"}, "overrides": {}}, "overrides: write a list"),
        ({"models": {"a": "x"}, "overrides": [{"skp": True}]}, "overrides, 1: unknown setting 'skp'"),
        (
            {"models": {"a": {"model": "x", "require": {"spedup": ">=2"}}}},
            "models.a: require: unknown budget 'spedup'; did you mean 'speedup'?",
        ),
        (
            {"models": {"a": {"model": "x", "require": ["speedup"]}}},
            "models.a: require: write a budget a line",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_mend(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        schema.of(settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_a_case(tmp_path):
    run = {"model": "m.onnx", "out": "bundles/mine", "preset": "fast", "max-drop": 1, "force": True}
    found = schema.of(run)
    assert list(found.models) == ["mine"]
    assert (found.models["mine"].preset, found.models["mine"].max_drop) == ("fast", 1)
    assert not found.models["mine"].force
    path = tmp_path / "one.yaml"
    path.write_text("model: m.onnx\n")
    assert list(schema.read(path).models) == ["one"]
    with pytest.raises(ConfigError, match="did you mean 'preset'"):
        schema.of({"model": "m", "presett": "fast"})


def test_a_name_alone_is_a_model_or_a_target():
    found = schema.of({"models": {"a": "x.onnx"}, "targets": {"old": "x86-64-avx2"}})
    assert (found.models["a"].model, found.targets["old"].target) == ("x.onnx", "x86-64-avx2")


def test_the_published_schema_knows_every_setting_of_a_run():
    found = json.loads(schema.printed_schema())
    known = {field.alias or name for name, field in RunConfig.model_fields.items()}
    model = found["$defs"]["Model"]
    assert set(model["properties"]) - {"require"} == known - set(schema.ELSEWHERE)
    assert model["required"] == ["model"]
    assert model["additionalProperties"] is False
    assert "x86-64-avx2" in model["properties"]["target"]["examples"]


def test_the_command_prints_it_and_refuses_in_a_sentence(command, tmp_path):
    printed = command("build", "--schema")
    assert json.loads(printed.stdout)["title"] == "graphwright deployment"
    path = tmp_path / "deploy.yaml"
    path.write_text("models: {a: x.onnx}\ntargets: {t: x86-64-avx3}\n")
    refused = command("build", path, "--dry-run")
    assert refused.returncode == 1
    assert "a-t: there is no target 'x86-64-avx3'; did you mean" in refused.stderr
    assert "Traceback" not in refused.stderr

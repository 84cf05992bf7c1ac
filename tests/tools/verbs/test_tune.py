"""`optimize tune`: searches what a build would be made of, keeps it, and says so."""

import json

import onnx
import onnx.parser
import pytest
from graphwright.backends.bundles.manifest import write_manifest
from graphwright.backends.tvm.tune import metaschedule, schedules, search, tasks
from graphwright.ir.errors import GraphwrightError
from graphwright.tools.cli import app
from graphwright.tools.verbs import tune as tuning
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Few candidates in short turns, on a record of the test's own."""
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metaschedule, "BATCH", 2)
    monkeypatch.setattr(metaschedule, "POPULATION", 8)
    monkeypatch.setattr(search, "ROUNDS", 2)
    monkeypatch.setattr(search, "TURN", 1e-4)
    monkeypatch.setattr(tasks, "FLOOR", 0.0)
    return tmp_path / "cache" / "tvm"


def invoke(*words):
    return CliRunner().invoke(app, ["tune", *map(str, words)], prog_name="optimize")


FEW = ("--pipeline", "fold-constants", "--shapes", "2", "--threads", "1", "--trials", "1")


@pytest.fixture
def model(tmp_path):
    """x [N, 24, 8] -> the softmax of its sum along the middle axis, which no kernel of the library covers."""
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 24, 8] x) => (float[N, 8] y) {
        axes = Constant<value_ints = [1]>()
        sums = ReduceSum<keepdims = 0>(x, axes)
        y = Softmax<axis = 1>(sums)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_ends(model, quick, monkeypatch):
    add = schedules.Schedules.add

    def interrupt(self, key, **what):
        add(self, key, **what)
        if "seconds" in what:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schedules.Schedules, "add", interrupt)
        result = invoke(model, *FEW)
    assert result.exit_code == 130, result.stderr
    assert "everything timed is kept" in result.stdout
    (kept,) = quick.glob("schedules-*.jsonl")
    assert sum("seconds" in json.loads(line) for line in kept.read_text().splitlines()) == 1

    result = invoke(model, *FEW, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert not found["interrupted"]
    assert {each["trials"] for each in found["functions"]} == {0, 1}
    assert all(each["speedup"] >= 1 for each in found["functions"])
    again = json.loads(invoke(model, *FEW, "--json").stdout)
    assert {each["trials"] for each in again["functions"]} == {0}
    assert "use what was found" in invoke(model, *FEW).stdout


def manifest(folder, **more):
    folder.mkdir()
    record = {
        "format": 1, "files": {"model.onnx": {"sha256": "0", "bytes": 0}}, "graphs": {}, "inputs": [],
        "outputs": [], "symbols": {}, "task": "none", "dispatch": [], "info": {}, **more,
    }  # fmt: skip
    write_manifest(folder, record)
    return str(folder)


def test_a_bundle_stands_for_what_it_was_made_from(tmp_path):
    config = {
        "model": "some/model",
        "preset": "fast",
        "out": "there",
        "shapes": ["1x16"],
        "threads": 2,
        "seed": 3,
    }
    bundle = manifest(tmp_path / "bundle", config=config, pipeline="to-onnx,fold-constants")
    settings = tuning.settings_of(bundle, {"threads": 1, "shapes": None})
    assert settings == {
        "model": "some/model", "pipeline": "to-onnx,fold-constants", "shapes": ["1x16"], "threads": 1,
        "seed": 3, "backend": "tvm",
    }  # fmt: skip
    assert "pipeline" not in tuning.settings_of(bundle, {"preset": "exact"})


def test_a_bundle_that_tells_nothing_is_refused(tmp_path):
    with pytest.raises(GraphwrightError, match=r"does not say what it was made from: name the model itself"):
        tuning.settings_of(manifest(tmp_path / "bundle"), {})


def test_wrong_words_are_refused_in_a_sentence(tmp_path):
    assert invoke(tmp_path / "nothing", "--trials", "0").exit_code == 2
    missing = invoke(tmp_path / "nothing")
    assert missing.exit_code == 1
    assert "Traceback" not in missing.stderr
    assert missing.stderr.count("\n") == 1

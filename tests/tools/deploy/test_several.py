"""One bundle for several targets: built, locked, rebuilt, told of; whole or not there."""

import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import graphwright as gw
import levels
import numpy as np
import pytest
import yaml
from graphwright.backends.bundles.manifest import read_manifest, verify_files
from graphwright.tools.deploy import lock, plan, schema
from graphwright.tools.deploy.builds import build

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86_64 are run")
OLD, NEW = "x86-64-avx2", "x86-64-vnni"


def _bundles(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(model_file, tmp_path_factory):
    """(folder of the file, results): a model for two levels in one bundle, and for the older alone."""
    home = tmp_path_factory.mktemp("several")
    shutil.copy(model_file, home / "m.onnx")
    deployment = {
        "defaults": {"threads": 1, "shapes": ["1x4"], "quick": True, "preset": "exact"},
        "models": {"m": str(home / "m.onnx")},
        "targets": {"any": [OLD, NEW], "old": OLD},
        "overrides": [{"targets": "any", "require": {"size": "<=1KB"}}],
    }
    (home / "deploy.yaml").write_text(yaml.safe_dump(deployment))
    return home, build(home / "deploy.yaml", home / "dist")


def test_the_bundle_answers_as_those_of_one_target_do(made, monkeypatch):
    home, results = made
    assert [each.state for each in results.results] == ["built", "built"], results.to_json()
    x = {"x": np.random.default_rng(1).standard_normal((2, 3, 32)).astype(np.float32)}
    (alone,) = gw.load(home / "dist" / "m-old").run(x).values()
    for flags, variant in ((levels.AVX2, OLD), (levels.VNNI, NEW)):
        levels.pretend(monkeypatch, flags)
        loaded = gw.load(home / "dist" / "m-any")
        assert loaded.variant == variant
        assert loaded.run(x)["y"].tobytes() == alone.tobytes()  # of exact passes


def test_what_is_told_of_it(made, invoke):
    home, results = made
    whole, single = results.results
    assert whole.unmet[0].startswith("size <=1KB is not met")
    assert single.unmet == ()
    assert single.facts.size < whole.facts.size < 2 * single.facts.size
    assert set(whole.facts.calls) == {"1x4"}
    record = read_manifest(home / "dist" / "m-any").record
    assert [each["target"] for each in record["variants"]] == [NEW, OLD]
    assert "out" not in record["variants"][0]["manifest"]["config"]
    report = (home / "dist" / "m-any" / "report.md").read_text()
    page = (home / "dist" / "m-any" / "report.html").read_text()
    for target in (OLD, NEW):
        assert f"| {target} | x86_64 with avx, avx2" in report
        assert f"## For {target}" in report
        assert target in page
    assert f"All else here is about the variant for {NEW}." in page
    told = invoke("inspect", home / "dist" / "m-any")
    assert told.exit_code == 0, told.stderr
    chosen = gw.load(home / "dist" / "m-any").variant
    assert f"This processor runs the variant for {chosen}." in told.stdout
    found = json.loads(invoke("inspect", home / "dist" / "m-any", "--json").stdout)
    assert [each["target"] for each in found["variants"]] == [NEW, OLD]
    rows = invoke("report", home / "dist" / "m-any", "--format", "md").stdout
    assert f"| {NEW} | x86_64 with" in rows


def test_inspect_says_why_none_runs(made, invoke, monkeypatch):
    levels.pretend(monkeypatch, "fpu avx")
    told = invoke("inspect", made[0] / "dist" / "m-any")
    assert told.exit_code == 0
    assert "runs on this processor, x86_64 with avx: x86-64-vnni needs" in " ".join(told.stdout.split())


def test_a_second_run_and_a_frozen_one_give_the_same_bytes(made, tmp_path, monkeypatch):
    home, _ = made
    before = _bundles(home / "dist")
    again = build(home / "deploy.yaml", home / "dist")
    assert [each.state for each in again.results] == ["unchanged", "unchanged"]
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    frozen = build(home / "deploy.yaml", tmp_path / "dist", only=["any"], frozen=True)
    assert [each.state for each in frozen.results] == ["from the lock"], frozen.to_json()
    assert {path: data for path, data in before.items() if path.parts[0] == "m-any"} == _bundles(
        tmp_path / "dist"
    )


def test_another_list_is_another_build(made, tmp_path):
    home, _ = made
    settings = yaml.safe_load((home / "deploy.yaml").read_text())
    settings["targets"]["any"] = [OLD, "x86-64-bf16"]
    results = build(settings, tmp_path / "dist", only=["any"], lock=home / "deploy.lock", frozen=True)
    assert "the setting target has changed" in results.results[0].error


def test_a_build_that_comes_out_differently_leaves_nothing(made, tmp_path):
    home, _ = made
    entries = lock.read(home / "deploy.lock")
    entry = entries["m-any"]
    record = entry.variants[NEW].record
    record["files"]["model.onnx"]["sha256"] = "0" * 64
    spoilt = replace(entry.variants[NEW], manifest=json.dumps(record).encode())
    entries["m-any"] = replace(entry, variants={**entry.variants, NEW: spoilt})
    lock.write(tmp_path / "l.lock", entries)
    results = build(
        home / "deploy.yaml", tmp_path / "dist", only=["any"], lock=tmp_path / "l.lock", frozen=True
    )
    assert "model.onnx comes out with other bytes than the lock's" in results.results[0].error
    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (["x86-64-avx2", "host"], "targets.t: target: 'host' is no named target"),
        (["x86-64-avx2", "x86-64-avx3"], "did you mean 'x86-64-avx2'?"),
        (["x86-64-avx2"], "a list of targets names two or more, each once"),
        (["x86-64-avx2", "x86-64-avx2"], "a list of targets names two or more, each once"),
        ([OLD, {"a": 1}], "is no named target"),
        (
            {"target": [OLD, NEW], "backend": "tvm", "rpc": "h:1", "device": "d"},
            "targets.t: a device has one processor: name one target for it",
        ),
    ],
)
def test_a_list_that_is_none_is_refused(target, sentence):
    with pytest.raises(gw.ConfigError) as caught:
        schema.of({"models": {"a": "x.onnx"}, "targets": {"t": target}})
    assert sentence in str(caught.value)


def test_the_plan_and_the_schema_know_lists():
    found = schema.of(
        {
            "models": {"a": "x.onnx"},
            "targets": {"t": [OLD, NEW], "u": {"target": [OLD, NEW], "backend": "tvm"}},
            "overrides": [{"targets": "u", "target": NEW}],
        }
    )
    several, one = plan.cases(found)
    assert several.levels == (OLD, NEW)
    assert several.settings["target"] == [OLD, NEW]
    assert (one.levels, one.config.target) == ((), NEW)
    forms = json.loads(schema.printed_schema())["properties"]["targets"]["additionalProperties"]["anyOf"]
    assert NEW in forms[1]["items"]["enum"]


@pytest.mark.slow
def test_killed_within_a_build_nothing_is_there_and_the_next_run_goes_on(made, tmp_path):
    home, _ = made
    words = [home / "deploy.yaml", "-o", tmp_path / "dist", "--only", "any", "--lock", tmp_path / "l", "-q"]
    line = [sys.executable, "-m", "graphwright.tools.cli", "build", *map(str, words)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not any((tmp_path / "dist").glob(f".m-any.*/{OLD}/manifest.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # one of two builds is done
    process.wait()
    assert [path for path in (tmp_path / "dist").iterdir() if not path.name.startswith(".")] == []
    assert not (tmp_path / "l").exists()
    again = subprocess.run([*line, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(again.stdout)["builds"][0]["state"] == "built", again.stderr
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["m-any"]
    verify_files(tmp_path / "dist" / "m-any", read_manifest(tmp_path / "dist" / "m-any"))


@pytest.mark.slow
def test_what_this_machine_cannot_run_is_built_and_not_timed(model_file, quick, tmp_path):
    deployment = {
        "defaults": {**quick, "preset": "exact"},
        "models": {"m": str(model_file)},
        "targets": {"t": {"target": [OLD, "aarch64-dotprod"], "backend": "tvm"}},
    }
    pytest.importorskip("tvm")
    results = build(deployment, tmp_path / "dist")
    assert results.results[0].state == "built", results.to_json()
    report = (tmp_path / "dist" / "m-t" / "report.md").read_text()
    assert "Built for another processor than that of the machine that built, and not timed: aarch64" in report
    assert "| aarch64-dotprod | aarch64 with asimd" in report
    assert set(results.results[0].facts.calls) == {"1x4"}
    assert gw.load(tmp_path / "dist" / "m-t").variant == OLD
    kept = read_manifest(tmp_path / "dist" / "m-t").record["variants"]
    assert all(each["weights"]["own"] > 0 for each in kept)  # packed in other orders

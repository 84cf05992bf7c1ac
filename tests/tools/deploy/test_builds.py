"""Deployments built for real: nothing twice, the same bytes from the lock, whole bundles or none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import graphwright as gw
import numpy as np
import pytest
import yaml
from graphwright.backends.bundles.manifest import read_manifest, verify_files
from graphwright.tools.deploy import lock
from graphwright.tools.deploy.builds import build

SECOND_RUN = """
import sys
for name in "torch transformers tvm onnx onnx_ir onnxruntime scipy".split(): sys.modules[name] = None
sys.argv = ["optimize", "build", *sys.argv[1:]]
from graphwright.tools.cli import main
main()
"""


def _bundles(folder):
    """Every file of every bundle, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def made(model_file, tmp_path_factory):
    """(folder of the file, results): a model for two targets, beside one that is none."""
    home = tmp_path_factory.mktemp("deploy")
    shutil.copy(model_file, home / "m.onnx")
    (home / "bad.onnx").write_bytes(b"no model")
    deployment = {
        "defaults": {"threads": 1, "shapes": ["1x4"], "quick": True},
        "models": {"bad": str(home / "bad.onnx"), "m": {"model": str(home / "m.onnx"), "preset": "fast"}},
        "targets": {"here": "host", "old": "x86-64-avx2"},
        "overrides": [
            {"models": "bad", "targets": "old", "skip": True},
            {"models": "m", "targets": "old", "require": {"size": "<=1KB"}},
        ],
    }
    (home / "deploy.yaml").write_text(yaml.safe_dump(deployment))
    return home, build(home / "deploy.yaml", home / "dist")


def test_other_builds_go_on_and_the_status_says_which_failed(made):
    home, results = made
    assert [(each.name, each.state) for each in results.results] == [
        ("bad-here", "failed"),
        ("m-here", "built"),
        ("m-old", "built"),
    ]
    assert results.status == 1
    assert "bad.onnx" in results.results[0].error
    assert results.results[2].unmet[0].startswith("size <=1KB is not met")
    assert sorted(path.name for path in (home / "dist").iterdir()) == ["m-here", "m-old"]
    assert set(lock.read(home / "deploy.lock")) == {"m-here", "m-old"}


def test_bundles_answer_as_the_model_does(made):
    home, _ = made
    x = np.random.default_rng(1).standard_normal((2, 3, 32)).astype(np.float32)
    import onnxruntime

    session = onnxruntime.InferenceSession(home / "m.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    for name in ("m-here", "m-old"):
        (found,) = gw.load(home / "dist" / name).run({"x": x}).values()
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()  # int8


def test_a_second_run_builds_nothing_and_loads_nothing_heavy(made):
    home, _ = made
    before = _bundles(home / "dist"), (home / "deploy.lock").read_bytes()
    words = [home / "deploy.yaml", "-o", home / "dist", "--only", "m", "--json", "--quiet"]
    line = [sys.executable, "-c", SECOND_RUN, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr  # the budget is still not met
    found = json.loads(done.stdout)
    assert [each["state"] for each in found["builds"]] == ["unchanged", "unchanged"]
    assert "m-old: size <=1KB is not met" in done.stderr
    assert (_bundles(home / "dist"), (home / "deploy.lock").read_bytes()) == before


def test_the_gate_holds_what_is_there_against_another_lock(made, invoke, tmp_path):
    home, _ = made
    entries = lock.read(home / "deploy.lock")
    facts = entries["m-here"].facts
    call = facts.calls["1x4"]
    better = replace(call, speedup=10 * call.speedup, interval=tuple(10 * edge for edge in call.interval))
    entries["m-here"] = replace(entries["m-here"], facts=replace(facts, calls={"1x4": better}))
    lock.write(tmp_path / "main.lock", entries)
    words = ["build", home / "deploy.yaml", "-o", home / "dist", "--only", "m-here"]
    words += [
        "--against",
        tmp_path / "main.lock",
        "--junit",
        tmp_path / "j.xml",
        "--summary",
        tmp_path / "s.md",
    ]
    told = invoke(*words)
    assert told.exit_code == 0, told.stderr
    assert "slower: " in (tmp_path / "s.md").read_text()
    gated = invoke(*words, "--gate")
    assert gated.exit_code == 3
    assert "optimize: m-here: slower: " in gated.stderr
    assert '<failure message="slower: ' in (tmp_path / "j.xml").read_text()


def test_frozen_gives_the_same_bytes_and_measures_nothing(made, tmp_path, monkeypatch):
    home, _ = made
    # A cache without measurements, and an interpreter in which nothing can start what measures.
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    shadow = tmp_path / "sitecustomize.py"
    shadow.write_text(
        "import sys, subprocess\n"
        "start = subprocess.Popen.__init__\n"
        "def refuse(self, line, *a, **k):\n"
        "    if 'graphwright.backends.measuring.worker' in line: raise SystemExit('it measures')\n"
        "    start(self, line, *a, **k)\n"
        "subprocess.Popen.__init__ = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    results = build(home / "deploy.yaml", tmp_path / "dist", only=["m"], frozen=True)
    assert [each.state for each in results.results] == ["from the lock", "from the lock"], results.to_json()
    assert _bundles(tmp_path / "dist") == _bundles(home / "dist")


def test_frozen_refuses_a_changed_input_by_name_and_leaves_all_as_it_was(made, tmp_path):
    home, _ = made
    for name in ("m.onnx", "deploy.yaml", "deploy.lock"):
        shutil.copy(home / name, tmp_path / name)
    settings = (tmp_path / "deploy.yaml").read_text()
    (home / "config.json").write_text("{}")
    try:
        results = build(home / "deploy.yaml", tmp_path / "dist", only=["m-here"], frozen=True)
    finally:
        (home / "config.json").unlink()
    assert results.status == 1
    assert f"{home}/config.json is new" in results.results[0].error
    (tmp_path / "deploy.yaml").write_text(settings.replace("fast", "exact"))
    results = build(tmp_path / "deploy.yaml", tmp_path / "dist", only=["m-here"], frozen=True)
    assert "the setting preset has changed" in results.results[0].error
    assert list((tmp_path / "dist").iterdir()) == []
    (tmp_path / "deploy.lock").unlink()
    with pytest.raises(gw.ConfigError, match=r"there is no .*deploy\.lock to rebuild from"):
        build(tmp_path / "deploy.yaml", tmp_path / "dist", frozen=True)


def test_frozen_refuses_bytes_that_come_out_differently(made, tmp_path):
    home, _ = made
    shutil.copy(home / "deploy.yaml", tmp_path)
    entries = lock.read(home / "deploy.lock")
    record = entries["m-here"].record
    record["files"]["model.onnx"]["sha256"] = "0" * 64
    spoilt = json.dumps(record).encode()
    entries["m-here"] = replace(entries["m-here"], manifest=spoilt)
    lock.write(tmp_path / "deploy.lock", entries)
    results = build(tmp_path / "deploy.yaml", tmp_path / "dist", only=["m-here"], frozen=True)
    assert "model.onnx comes out with other bytes than the lock's" in results.results[0].error
    assert list((tmp_path / "dist").iterdir()) == []


def test_two_builds_in_one_place_are_refused(made, tmp_path):
    from graphwright.ir.host.locks import hold

    home, _ = made
    (tmp_path / "dist").mkdir()
    held = hold(tmp_path / "dist")
    try:
        with pytest.raises(gw.ConfigError, match="another build writes to"):
            build(home / "deploy.yaml", tmp_path / "dist")
    finally:
        os.close(held)


@pytest.mark.slow
def test_killed_at_any_moment_there_are_whole_bundles_and_the_next_run_goes_on(made, tmp_path):
    home, _ = made
    words = [
        home / "deploy.yaml",
        "-o",
        tmp_path / "dist",
        "--only",
        "m",
        "--lock",
        tmp_path / "l.lock",
        "-q",
    ]
    line = [sys.executable, "-m", "graphwright.tools.cli", "build", *map(str, words)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (tmp_path / "l.lock").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)  # into the second build
    process.send_signal(signal.SIGKILL)
    process.wait()
    names = [path.name for path in (tmp_path / "dist").iterdir() if not path.name.startswith(".")]
    assert "m-here" in names
    for name in names:
        verify_files(tmp_path / "dist" / name, read_manifest(tmp_path / "dist" / name))
    again = subprocess.run([*line, "--json"], capture_output=True, text=True, check=False)
    states = {each["name"]: each["state"] for each in json.loads(again.stdout)["builds"]}
    assert states == {"m-here": "unchanged", "m-old": "built"}, again.stderr
    assert sorted(path.name for path in (tmp_path / "dist").iterdir()) == ["m-here", "m-old"]

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphwright.backends.bundles import bundle, finished
from graphwright.backends.bundles.bundle import Route, Variant, route, write
from graphwright.backends.bundles.folder import check_free
from graphwright.backends.bundles.onnx_file import WeightFile
from graphwright.backends.running.runner import load
from graphwright.ir.errors import BundleError
from graphwright.ir.footprint import weight_bytes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_whole(tiny, tmp_path):
    program, _, feed, reference = tiny
    out = write(
        tmp_path / "out", [Variant("only", program)], manifest={"seed": 3}, report="# done\n", threads=2
    )
    assert names(out) == ["manifest.json", "model.onnx", "report.md", "tokenizer.json"]
    record = json.loads((out / "manifest.json").read_text())
    assert record["seed"] == 3
    assert record["files"].keys() == {"model.onnx", "report.md", "tokenizer.json"}
    assert record["files"]["report.md"]["bytes"] == 7
    assert record["inputs"][0] == {
        "name": "input_ids", "dtype": "int64", "shape": ["batch", "length"], "role": "token_ids", "high": 40,
        "low": 0, "follows": None, "reach": 0, "indexes": False, "seen": None, "hidden": 0,
        "given_by": "",
    }  # fmt: skip
    assert record["versions"]["onnxruntime"] == onnxruntime.__version__
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feed)[0], reference, atol=1e-5)
    assert names(tmp_path) == ["out"]


def test_the_same_programs_give_the_same_bytes(make, tmp_path):
    for folder in ("a", "b"):
        variants = [Variant("default", make.encoder()), Variant("other", make.encoder(make.weights(1)))]
        write(tmp_path / folder, variants, manifest={"seed": 0})
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_graphs_share_the_weights_they_have_in_common(make, tmp_path):
    arrays = {**make.weights(), "table": np.ones((40, 16), np.float32) * np.arange(16, dtype=np.float32)}
    other = {**arrays, "dense": arrays["dense"] * 2}
    out = write(
        tmp_path / "out", [Variant("default", make.encoder(arrays)), Variant("x", make.encoder(other))]
    )
    assert names(out)[1:4] == ["model.onnx", "model.onnx.data", "model.x.onnx"]
    places = {}
    for graph in ("model.onnx", "model.x.onnx"):
        for tensor in onnx.load(out / graph, load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "model.onnx.data"
            places[graph, tensor.name] = int(entries["offset"])
    assert places["model.onnx", "table"] == places["model.x.onnx", "table"]
    assert places["model.onnx", "dense"] != places["model.x.onnx", "dense"]
    feed = make.feed()
    for graph, expected in (("model.onnx", arrays), ("model.x.onnx", other)):
        session = onnxruntime.InferenceSession(out / graph, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, feed)[0], make.expected(expected, feed), atol=1e-5)


def test_past_protobufs_limit_the_weights_lie_beside_the_graph(tiny, tmp_path, monkeypatch):
    program, _, feed, reference = tiny
    monkeypatch.setattr(bundle, "LIMIT", weight_bytes(program))
    out = write(tmp_path / "out", [Variant("only", program)])
    assert names(out) == ["manifest.json", "model.onnx", "model.onnx.data", "report.md", "tokenizer.json"]
    assert (out / "model.onnx").stat().st_size < weight_bytes(program) / 2
    np.testing.assert_allclose(load(out).run(feed)["embedding"], reference, atol=1e-5)
    monkeypatch.setattr(bundle, "LIMIT", weight_bytes(program) + 1)
    assert "model.onnx.data" not in names(write(tmp_path / "small", [Variant("only", program)]))


def test_a_route_is_where_a_workload_lies(make):
    feed = make.feed(3, 10, padding=5)
    assert route("mixed:3", make.encoder(), feed, "default") == Route("mixed:3", 3, 10, 0.5, "default")


@pytest.mark.parametrize(
    ("variants", "dispatch", "sentence"),
    [
        ([], [], "at least one graph"),
        (["a", "a"], [], "one name: a, a"),
        (["../a"], [], r"'\.\./a' can't name a graph"),
        (["a"], [Route("1x1", 1, 1, 0.0, "b")], "sends 1x1 to 'b', which isn't written"),
    ],
)
def test_what_makes_no_bundle_is_refused(make, tmp_path, variants, dispatch, sentence):
    with pytest.raises(BundleError, match=sentence):
        write(tmp_path / "out", [Variant(name, make.encoder()) for name in variants], dispatch)
    assert names(tmp_path) == []


def test_variants_must_be_one_program(make, tmp_path):
    other = replace(make.encoder(), outputs=("other",))
    with pytest.raises(BundleError, match="'b' has other inputs or outputs than 'a'"):
        write(tmp_path / "out", [Variant("a", make.encoder()), Variant("b", other)])


def test_an_existing_directory_is_kept(tiny, tmp_path):
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="first")
    with pytest.raises(BundleError, match="exists already; choose another directory, or --force"):
        write(out, [Variant("a", tiny[0])], report="second")
    assert (out / "report.md").read_text() == "first"
    write(out, [Variant("a", tiny[0])], report="second", force=True)
    assert (out / "report.md").read_text() == "second"
    assert names(tmp_path) == ["out"]


def test_force_replaces_bundles_and_nothing_else(tiny, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match=r"holds no manifest\.json, so --force does not replace it"):
        write(mine, [Variant("a", tiny[0])], force=True)
    assert (mine / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="not a directory"):
        write(tmp_path / "file", [Variant("a", tiny[0])], force=True)


def test_an_empty_directory_is_filled(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", [Variant("a", tiny[0])])
    assert "model.onnx" in names(tmp_path / "out")


def test_too_little_room_is_seen_before_writing(tiny, tmp_path, monkeypatch):
    usage = finished.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(finished.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(BundleError, match=r"needs 0 MB and .* has 0 MB free"):
        write(tmp_path / "out", [Variant("a", tiny[0])])
    assert names(tmp_path) == []


@pytest.mark.parametrize("when", ["weights", "graph", "manifest"])
def test_a_disk_that_fills_up_leaves_nothing_and_keeps_the_old_bundle(make, tmp_path, monkeypatch, when):
    out = write(tmp_path / "out", [Variant("a", make.encoder())], report="old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    broken = {
        "weights": (WeightFile, "add"),
        "graph": (bundle, "write_external"),
        "manifest": (finished, "sha256"),
    }
    monkeypatch.setattr(*broken[when], full)
    with pytest.raises(BundleError, match="no space left for out in"):
        write(out, [Variant("a", make.encoder()), Variant("b", make.encoder())], force=True)
    assert names(tmp_path) == ["out"]
    assert (out / "report.md").read_text() == "old"


def test_a_failed_last_step_brings_the_old_bundle_back(tiny, tmp_path, monkeypatch):
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="old")
    real = bundle.Path.rename

    def rename(self, target):
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(bundle.Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write(out, [Variant("a", tiny[0])], report="new", force=True)
    assert (out / "report.md").read_text() == "old"
    assert names(tmp_path) == ["out"]


SLOW_WRITER = """
import sys, time
sys.path[:0] = [{here!r}]
from conftest import encoder
from graphwright.backends.bundles import bundle, finished
real = finished.sha256
def slow(path):
    print("writing", flush=True)
    time.sleep(60)
finished.sha256 = slow
bundle.write({out!r}, [bundle.Variant("a", encoder())])
"""


def test_a_kill_in_the_middle_leaves_no_bundle_and_the_next_run_cleans_up(tiny, tmp_path):
    out, here = tmp_path / "out", str(Path(__file__).parents[1])
    script = SLOW_WRITER.format(here=here, out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    assert len(names(tmp_path)) == 1
    time.sleep(0.05)
    write(out, [Variant("a", tiny[0])])
    assert names(tmp_path) == ["out"]


def test_a_kill_between_the_two_renames_loses_no_bundle(tiny, tmp_path):
    """The old bundle is aside, the new one complete but unnamed, and the process gone."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="old")
    out.rename(tmp_path / f".out.{dead.pid}.old")
    (tmp_path / f".out.{dead.pid}.partial").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        write(out, [Variant("a", tiny[0])], report="new")
    assert (out / "report.md").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_an_old_bundle_that_was_replaced_is_cleared_away(tiny, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="new")
    (tmp_path / f".out.{dead.pid}.old").mkdir()
    write(out, [Variant("a", tiny[0])], report="newer", force=True)
    assert names(tmp_path) == ["out"]


def test_another_process_that_still_writes_is_left_alone(tiny, tmp_path):
    out, here = tmp_path / "out", str(Path(__file__).parents[1])
    script = SLOW_WRITER.format(here=here, out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        (busy,) = tmp_path.iterdir()
        write(out, [Variant("a", tiny[0])])
        assert busy.exists()
        process.kill()


def test_a_leftover_of_the_same_process_number_is_cleared_away(tiny, tmp_path):
    """Every container has a process 1."""
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="old")
    out.rename(tmp_path / f".out.{os.getpid()}.old")
    (tmp_path / f".out.{os.getpid()}.partial").mkdir()
    write(out, [Variant("a", tiny[0])], report="new", force=True)
    assert (out / "report.md").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_a_hidden_bundle_comes_back_before_the_work(tiny, tmp_path):
    out = write(tmp_path / "out", [Variant("a", tiny[0])], report="old")
    out.rename(tmp_path / ".out.1.old")
    with pytest.raises(BundleError, match="exists already"):
        check_free(out, force=False)
    assert (out / "report.md").read_text() == "old"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("file/out", "Not a directory"),
        ("a" * 300, "File name too long"),
        ("a" * 250, "File name too long"),  # that of the unfinished bundle
        ("/proc/nowhere/out", "No such file"),
        ("no\0name", "null"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, place, sentence):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=f"can't be written to .*{sentence}"):
        check_free(tmp_path / place, force=False)
    assert names(tmp_path) == ["file"]


def test_trying_a_place_leaves_nothing(tmp_path):
    check_free(tmp_path / "new" / "out", force=False)
    assert names(tmp_path) == []


def test_numpy_values_are_recorded_as_numbers(tiny, tmp_path):
    facts = {"ratio": np.float32(1.5), "rows": np.arange(2), "isa": {"b", "a"}, "path": tmp_path}
    facts |= {"snr": np.inf, "worst": [np.float32(np.nan)], "name": "\udcff"}
    out = write(tmp_path / "out", [Variant("a", tiny[0])], manifest=facts)
    record = json.loads((out / "manifest.json").read_bytes())
    assert (record["ratio"], record["rows"], record["isa"]) == (1.5, [0, 1], ["a", "b"])
    assert (record["snr"], record["worst"], record["name"]) == (None, [None], "\udcff")

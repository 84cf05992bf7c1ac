"""The C runner, built by this machine's compiler: the same bits as Python, and the same refusals."""

import json
import os
import shutil
import subprocess
import threading
from dataclasses import replace

import c_runner
import numpy as np
import onnx_ir
import pytest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.bundles.manifest import write_manifest
from graphwright.backends.runners import build as building
from graphwright.backends.running.runner import load
from graphwright.ir.errors import BackendError, BundleError
from graphwright.ir.spec import InputSpec
from hypothesis import given, settings
from hypothesis import strategies as st

ROUTES = [
    Route("1x8", 1, 8, 0.0, "default"),
    Route("16x8", 16, 8, 0.0, "wide"),
    Route("mixed:16", 16, 8, 0.5, "packed"),
]


@pytest.fixture(scope="module")
def library(runner):
    return c_runner.Library(runner / building.LIBRARY)


def three_graphs(make, folder, **changes):
    """Graphs that give themselves away by their weights."""
    variants = [Variant(r.graph, make.encoder(make.weights(i), **changes)) for i, r in enumerate(ROUTES)]
    return write(folder, variants, ROUTES, threads=1, report="report\n")


@pytest.fixture(scope="module")
def out(make, tmp_path_factory):
    return three_graphs(make, tmp_path_factory.mktemp("bundle") / "out")


@pytest.fixture(scope="module")
def both(library, out):
    return library.load(out), load(out)


@settings(deadline=None)
@given(
    batch=st.integers(1, 64), length=st.integers(1, 12), padding=st.integers(0, 11), seed=st.integers(0, 9)
)
def test_every_shape_gives_the_same_bits_by_the_same_graph(both, make, batch, length, padding, seed):
    feed = make.feed(batch, length, min(padding, length - 1), seed)
    found, wanted = (each.run(feed)["embedding"] for each in both)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def test_it_says_what_it_takes_and_gives(both):
    assert both[0].described("input") == [
        ("input_ids", "int64", [-1, -1]),
        ("attention_mask", "int64", [-1, -1]),
    ]
    assert [name for name, _, _ in both[0].described("output")] == ["embedding"]


def bad_feeds(make):
    feed = make.feed(2, 5)
    ids, mask = feed["input_ids"], feed["attention_mask"]
    yield {"input_ids": ids}, "the input attention_mask is missing"
    yield {**feed, "more": ids}, "the model has no input more"
    yield (
        {**feed, "input_ids": ids.astype(np.int32)},
        "input_ids: its dtype is int32 and the model takes int64",
    )
    yield {**feed, "input_ids": ids[0]}, "input_ids: its shape is [5] and the model takes [batch, length]"
    yield {**feed, "attention_mask": mask[:1]}, "its batch is 1, but that of input_ids is 2"
    yield make.feed(65, 5), "input_ids: its batch is 65 and the model takes at most 64"
    yield make.feed(0, 5), "input_ids: its batch is 0 and the model takes at least 1"
    yield {**feed, "input_ids": ids + 40}, "out of range; ids go from 0 to 39"
    yield {**feed, "input_ids": ids - 40}, "out of range; ids go from 0 to 39"
    yield {**feed, "input_ids": ids.copy() - 2**62}, "is out of range"


def test_what_does_not_fit_is_refused_and_the_bundle_lives(both, make):
    for feed, sentence in bad_feeds(make):
        with pytest.raises(c_runner.RunnerError) as caught:
            both[0].run(feed)
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)
    feed = make.feed()
    assert both[0].run(feed)["embedding"].tobytes() == both[1].run(feed)["embedding"].tobytes()


def test_indices_and_memories_are_checked_as_in_python(library, make, tmp_path):
    """One input counts places of another's length; one is a memory, and empty where it is left out."""
    out = three_graphs(make, tmp_path / "out")
    record = json.loads((out / "manifest.json").read_text())
    record["inputs"][1] |= {"role": "memory", "given_by": "embedding"}
    record["inputs"][0] |= {"high": None, "indexes": True, "follows": "length", "reach": 1}
    write_manifest(out, record)
    bundles = library.load(out), load(out)
    ids = np.array([[0, 5, -4, 1, 2]])
    found, wanted = (each.run({"input_ids": ids})["embedding"] for each in bundles)
    assert found.tobytes() == wanted.tobytes()
    for wrong in (6, -5):
        ids[0, 0] = wrong
        for each in bundles:
            with pytest.raises(
                Exception, match=f"{wrong} is out of range; at length 5 indices go from 1 to 5"
            ):
                each.run({"input_ids": ids})


@pytest.mark.parametrize(
    ("dtype", "onnx_name"),
    [("float32", "FLOAT"), ("float16", "FLOAT16"), ("bool", "BOOL"), ("int32", "INT32"), ("uint8", "UINT8")],
)
def test_masks_of_every_dtype_choose_the_same_graph(library, make, tmp_path, dtype, onnx_name):
    spec = InputSpec("attention_mask", dtype, ("batch", "length"), "attention_mask", hidden=0)
    variants = []
    for i, row in enumerate(ROUTES):
        program = make.encoder(make.weights(i))
        program.graph.graph.inputs[1].dtype = onnx_ir.DataType[onnx_name]
        variants.append(Variant(row.graph, replace(program, inputs=(program.inputs[0], spec))))
    out = write(tmp_path / "out", variants, ROUTES, threads=1)
    in_c, in_python = library.load(out), load(out)
    for padding in (0, 4):
        feed = make.feed(16, 8, padding)
        feed["attention_mask"] = feed["attention_mask"].astype(dtype)
        assert in_c.run(feed)["embedding"].tobytes() == in_python.run(feed)["embedding"].tobytes()


def test_threads_share_a_bundle(both, make):
    feeds = [make.feed(1 + i % 20, 1 + i % 12, seed=i) for i in range(40)]
    wanted = [both[1].run(feed)["embedding"].tobytes() for feed in feeds]
    found = [[] for _ in range(4)]

    def work(mine):
        mine.extend(both[0].run(feed)["embedding"].tobytes() for feed in feeds)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


@pytest.fixture
def copied(out, tmp_path):
    return shutil.copytree(out, tmp_path / "copy")


def refused(library, folder):
    with pytest.raises(BundleError):
        load(folder)
    with pytest.raises(c_runner.RunnerError) as caught:
        library.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "report.md"])
def test_a_changed_file_is_refused(library, copied, name):
    path = copied / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert f"{name} is not the file that the manifest was made for" in refused(library, copied)
    path.write_bytes(content[:-1])
    assert "bytes and the manifest says" in refused(library, copied)
    path.unlink()
    assert f"{name} is missing" in refused(library, copied)
    os.mkfifo(path)
    assert "not a regular file" in refused(library, copied)


def test_an_unlisted_model_file_is_refused(library, copied):
    (copied / "more").mkdir()
    (copied / "more" / "other.onnx").write_bytes(b"")
    assert "more/other.onnx is not in the manifest" in refused(library, copied)


def test_a_changed_manifest_is_refused(library, copied):
    path = copied / "manifest.json"
    whole = path.read_bytes()
    for place in range(60, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "manifest.json" in refused(library, copied)
    path.write_bytes(b'{"format": 1}')
    assert "carries no hash of itself" in refused(library, copied)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 4}, "bundle format 4 and this runner reads up to 3"),
        ({"format": "1"}, "is not the manifest of a graphwright bundle"),
        ({"graphs": {"default": "other.onnx"}}, "is damaged (the graph other.onnx is not among its files)"),
        ({"files": {"../model.onnx": {"sha256": "", "bytes": 1}}}, "leads out of the bundle"),
        ({"symbols": {"batch": [4, 1]}}, "bounds from 4 to 1"),
        ({"inputs": [{"name": 3}]}, "3 where a text is due"),
        ({"threads": 0}, "0 where a whole number from 1 to 4096 is due"),
        ({"dispatch": [{"graph": "none"}]}, "names no graph"),
    ],
)
def test_a_manifest_that_lies_is_refused(library, copied, change, sentence):
    record = json.loads((copied / "manifest.json").read_text())
    write_manifest(copied, record | change)
    assert sentence in refused(library, copied)


def test_other_places_are_refused(library, tmp_path):
    assert "manifest.json is missing" in refused(library, tmp_path)
    assert "manifest.json is missing" in refused(library, tmp_path / "none")
    with pytest.raises(c_runner.RunnerError, match="threads"):
        library.load(tmp_path, threads=-1)


def test_a_file_that_changes_later_is_not_loaded(library, copied, make):
    bundle = library.load(copied)
    bundle.run(make.feed(1, 8))
    os.utime(copied / "model.wide.onnx", (1, 1))
    with pytest.raises(c_runner.RunnerError, match="has changed since the bundle was loaded"):
        bundle.run(make.feed(16, 8))
    bundle.run(make.feed(1, 8))  # what was loaded before goes on


def test_the_example_in_c_reads_and_writes_arrays(runner, out, make, tmp_path):
    program = runner / building.PROGRAM
    told = subprocess.run([program, out], capture_output=True, text=True, check=True).stdout
    assert "takes input_ids int64 [?, ?]\n" in told
    feed = make.feed(3, 7, padding=2)
    for name, array in feed.items():
        np.save(tmp_path / f"{name}.npy", array)
    words = [f"{name}={tmp_path / name}.npy" for name in feed]
    subprocess.run([program, out, *words, tmp_path / "found"], check=True)
    found = np.load(tmp_path / "found" / "embedding.npy")
    assert found.tobytes() == load(out).run(feed)["embedding"].tobytes()
    np.save(tmp_path / "input_ids.npy", np.asfortranarray(feed["input_ids"]))
    for wrong in ([words[0], tmp_path], ["input_ids=none.npy", tmp_path], ["input_ids", tmp_path]):
        failed = subprocess.run([program, out, *wrong], capture_output=True, text=True)
        assert failed.returncode == 1
        assert len(failed.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("rustc") is None, reason="needs rustc")
def test_the_example_in_rust(runner, out, tmp_path):
    line = ["rustc", "run.rs", "-L", ".", "-C", f"link-arg=-Wl,-rpath,{runner}", "-o", tmp_path / "run"]
    subprocess.run(line, cwd=runner, check=True)
    told = subprocess.run(
        [tmp_path / "run", out, "2", "7"], capture_output=True, text=True, check=True
    ).stdout
    ones = np.ones((2, 7), np.int64)
    wanted = load(out).run({"input_ids": ones, "attention_mask": ones})["embedding"]
    assert told == f"embedding [2, 16] {wanted.tobytes().hex()}\n"


def test_a_missing_runtime_is_named(runner, out, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in (building.LIBRARY, building.PROGRAM):
        shutil.copy(runner / name, alone / name)
    failed = subprocess.run([alone / building.PROGRAM, out], capture_output=True, text=True)
    assert "libonnxruntime.so.1 can't be loaded" in failed.stderr
    environment = {**os.environ, "GRAPHWRIGHT_ONNXRUNTIME": str(runner)}
    subprocess.run([alone / building.PROGRAM, out], check=True, env=environment, stdout=subprocess.DEVNULL)


def test_a_runner_is_whole_or_not_there(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(BundleError, match="exists already"):
        building.build(tmp_path / "taken")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BackendError, match="the compiler false fails"):
        building.build(tmp_path / "new", "system")
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install ziglang"):
        building.build(tmp_path / "new", "zig")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_zig_serves_where_there_is_no_compiler(monkeypatch):
    monkeypatch.setattr(building.shutil, "which", lambda name: None)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert [words[-2:] for words in building._compilers(None)] == [["ziglang", "cc"], ["ziglang", "c++"]]
    with pytest.raises(BackendError, match="no C"):
        building._compilers("system")

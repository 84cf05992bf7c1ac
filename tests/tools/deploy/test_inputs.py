"""Every file that a build depends on, and their digests read once."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphwright.ir.errors import CaptureError, ConfigError
from graphwright.tools.config import make
from graphwright.tools.deploy import hashes as hashing
from graphwright.tools.deploy.hashes import Hashes
from graphwright.tools.deploy.inputs import digests
from onnx import TensorProto, helper, numpy_helper


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_directorys_files_and_the_data_are_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "m/config.json",
        "m/1_Pooling/config.json",
        "m/model.safetensors",
        "m/.cache/x.json",
        "m/README.md",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("rows.csv").write_text("a,b")
    Path("teacher").mkdir()
    Path("teacher/config.json").write_text("t")
    run = make({"model": "m", "data": "rows.csv", "pipeline": "recover{teacher=teacher,steps=3}"})
    found = digests(run, Hashes(None))
    assert found == {
        "m/config.json": _digest(b"m/config.json"),
        "m/1_Pooling/config.json": _digest(b"m/1_Pooling/config.json"),
        "m/model.safetensors": _digest(b"m/model.safetensors"),
        "rows.csv": _digest(b"a,b"),
        "teacher/config.json": _digest(b"t"),
    }


def test_an_onnx_files_weights_and_tokenizer_beside_it_are_inputs(tmp_path):
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    inner = helper.make_graph([helper.make_node("Identity", ["v"], ["i"])], "b", [],
                              [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(np.ones((64, 64), np.float32), "v")])  # fmt: skip
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    ends = (
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, [weight]))
    path = tmp_path / "onnx" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    (tmp_path / "tokenizer.json").write_text("{}")
    (path.parent / "notes.txt").write_text("no part of it")
    found = digests(make({"model": str(path)}), Hashes(None))
    names = {os.path.relpath(name, path.parent) for name in found}
    assert names == {"model.onnx", "w", "v", "../tokenizer.json"}


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"model": "./gone"}, CaptureError, "there is no './gone'"),
        ({"model": "gone.onnx"}, ConfigError, "gone.onnx can't be read: No such file"),
        ({"model": "empty"}, CaptureError, "'empty' holds no model"),
        ({"model": "m.pt2", "data": "gone.csv"}, ConfigError, "gone.csv can't be read"),
    ],
)
def test_what_is_missing_is_named(settings, error, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("m.pt2").write_text("x")
    with pytest.raises(error, match=sentence):
        digests(make(settings), Hashes(None))


def test_a_settled_file_is_read_once_and_a_changed_one_again(tmp_path, monkeypatch):
    path, memory = tmp_path / "f", tmp_path / "cache" / "hashes.json"
    path.write_text("one")
    monkeypatch.setattr(hashing, "SETTLED", -1.0)
    first = Hashes(memory)
    assert first.of(path) == _digest(b"one")
    first.save()
    monkeypatch.setattr(hashing, "sha256", lambda path: pytest.fail("it was read again"))
    assert Hashes(memory).of(path) == _digest(b"one")
    monkeypatch.undo()
    kept = os.stat(path)
    path.write_text("two")
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # as rsync and tar would
    assert Hashes(memory).of(path) == _digest(b"two")


def test_a_file_that_is_too_new_is_not_taken_for_known(tmp_path):
    path, memory = tmp_path / "f", tmp_path / "hashes.json"
    path.write_text("one")
    hashes = Hashes(memory)
    hashes.of(path)
    hashes.save()
    assert not memory.exists()


def test_damaged_memory_is_none(tmp_path):
    path, memory = tmp_path / "f", tmp_path / "hashes.json"
    path.write_text("one")
    for content in ("", "[]", json.dumps({str(path): 3}), json.dumps({str(path): [1]})):
        memory.write_text(content)
        assert Hashes(memory).of(path) == _digest(b"one")

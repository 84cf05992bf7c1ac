"""`optimize runner`: what it says, and what it refuses in one sentence."""

import json

from graphwright.tools.verbs import runner as building


def test_it_lists_what_was_built(invoke, tmp_path, monkeypatch):
    def built(out, compiler):
        folder = tmp_path / out
        folder.mkdir()
        for name in ("libgraphwright.so", "libonnxruntime.so.1"):
            (folder / name).touch()
        return folder

    monkeypatch.setattr(building, "build", built)
    found = invoke("runner", "-o", "one", "--json")
    assert json.loads(found.stdout)["files"] == ["libgraphwright.so", "libonnxruntime.so.1"]
    told = " ".join(invoke("runner", "-o", "two").stdout.split())
    assert told.endswith("graphwright-run; beside it lies ONNX Runtime")


def test_wrong_usage(invoke, tmp_path):
    assert invoke("runner").exit_code == 2
    assert invoke("runner", "-o", tmp_path / "new", "--compiler", "msvc").exit_code == 2
    (tmp_path / "file").touch()
    found = invoke("runner", "-o", tmp_path / "file")
    assert found.exit_code == 1
    assert "exists" in found.stderr

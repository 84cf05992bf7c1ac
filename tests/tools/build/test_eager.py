"""PyTorch's contestant: loaded while a run begins, taken once, ended where nobody took it."""

from types import SimpleNamespace

import pytest
from graphwright.tools.build import eager
from graphwright.tools.build.eager import Eager, source_of
from graphwright.tools.build.steps import PYTORCH


class Loading:
    def __init__(self, name, kind, path, threads, wait=True):
        self.name, self.kind, self.wait, self.closed = name, kind, wait, False

    def close(self):
        self.closed = True


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(eager, "Worker", Loading)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_the_one_that_was_loaded_ahead_is_taken_once(source):
    with Eager(source, 2) as ahead:
        ahead._worker.ready = lambda: None
        ahead.wait()
        assert ahead.start("bundle", "onnxruntime", source, 2).wait
        taken = ahead.start(PYTORCH, "torch", source, 2)
        assert (taken.kind, taken.wait) == ("torch", False)
        assert ahead.start(PYTORCH, "torch", source, 2).wait
    assert not taken.closed  # whoever took it ends it


def test_one_that_nobody_took_is_ended(source):
    with Eager(source, 2) as ahead:
        left = ahead._worker
    assert left.closed


def test_what_is_too_large_to_wait_in_memory_is_loaded_in_turn(source, monkeypatch):
    monkeypatch.setattr(eager, "too_large", lambda sizes: True)
    with Eager(source, 2) as ahead:
        ahead.wait()
        assert ahead.start(PYTORCH, "torch", source, 2).wait


def test_pytorch_takes_part_where_the_model_came_from_there_and_takes_the_same_calls(source):
    program = SimpleNamespace(info={"source": str(source)})
    assert source_of(program, None) == source
    assert source_of(program, SimpleNamespace(passes=())) == source
    assert source_of(program, SimpleNamespace(passes=("widen",))) is None
    assert source_of(SimpleNamespace(info={"source": str(source / "model.onnx")}), None) is None

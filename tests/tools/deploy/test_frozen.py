"""What a lock holds decides alike: ranges that were calibrated, and ratios that passes were given."""

import copy
import json

import numpy as np
import onnx_ir as ir
import pytest
from graphwright.backends.measuring.workloads import Workload
from graphwright.ir.capture import capture
from graphwright.ir.errors import BundleError, MeasureError, PassError
from graphwright.passes.manager.contract import Ratio
from graphwright.tools.build.replay import Replayed, asked
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.deploy import frozen, lock
from graphwright.tools.deploy.builds import build
from graphwright.tools.deploy.lock import Decisions, Entry

PIPELINE = "to-onnx,fold-constants,quantize-static{min_cosine=0.9}"


@pytest.fixture(scope="module")
def locked(encoder_directory, tmp_path_factory):
    """(settings, folder, entry) of an int8 build, whose passes are trusted to pay."""
    home = tmp_path_factory.mktemp("frozen")
    settings = {"model": str(encoder_directory), "pipeline": PIPELINE, "threads": 1, "shapes": ["1x4"]}
    settings["quick"] = True
    results = build({"models": {"e": settings}}, home)
    assert results.status == 0, results.to_json()
    return settings, home, lock.read(home / "deploy.lock")["e"]


@pytest.fixture
def make_program(model_file):
    """The model with a weight moved by so much."""

    def make(moved):
        program = capture(model_file)
        weight = program.graph.graph.initializers["a"]
        weight.const_value = ir.tensor(weight.const_value.numpy() + np.float32(moved), name="a")
        return program

    return make


def _changed(entry: Entry, **decisions) -> Entry:
    """The entry with other decisions, as a lock would hold it."""
    told = copy.deepcopy(entry.to_json())
    told["decisions"] |= decisions
    return Entry.from_json(json.loads(json.dumps(told)))


@pytest.mark.slow
def test_what_was_measured_is_taken_from_the_lock(locked, tmp_path, monkeypatch):
    settings, home, entry = locked
    from graphwright.passes.quantize import quantize_static

    def calibrated(*_):
        raise PassError("it calibrates again")

    monkeypatch.setattr(quantize_static, "estimator", calibrated)
    frozen.rebuild(make(settings), settings["model"], entry, tmp_path / "e", Console(quiet=True))
    there, here = ({p.name: p.read_bytes() for p in d.iterdir()} for d in (home / "e", tmp_path / "e"))
    assert there == here


def test_ratios_are_those_that_were_measured_of_the_same_programs(make_program):
    first, second = make_program(0), make_program(1)
    known = {asked(first, second, "1x4"): Ratio(2.0, 1.9, 2.1)}
    replayed = Replayed([Workload("1x4", {})], known)
    assert replayed(first.clone(), second)["1x4"].median == 2.0
    assert replayed(first, second, "1x4") == {"1x4": Ratio(2.0, 1.9, 2.1)}
    for asking in ((second, first), (first, second, "8x4"), (first, second, None, 3)):
        with pytest.raises(MeasureError, match="a graph comes out differently here"):
            replayed(*asking)


@pytest.mark.slow
def test_other_ranges_are_other_bytes_and_refused(locked, tmp_path):
    settings, _, entry = locked
    text = json.dumps(entry.decisions.chosen)
    doubled = json.loads(text.replace('"static"', '"float"', 1))
    other = _changed(entry, chosen=doubled)
    assert isinstance(other.decisions, Decisions)
    with pytest.raises(BundleError, match=r"model\.onnx comes out with other bytes than the lock's"):
        frozen.rebuild(make(settings), settings["model"], other, tmp_path / "e", Console(quiet=True))
    assert list(tmp_path.iterdir()) == []

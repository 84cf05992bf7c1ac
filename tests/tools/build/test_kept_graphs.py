"""The report is about the bundle: what it says of passes, quality and size is read from the graphs in it."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.tools import report
from graphwright.tools.build import building_graphs, work
from graphwright.tools.build.verdict import closing
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.verbs.optimize import run
from handmade import parsed

BODY = "f = Add(one, half) g = Mul(w, f) h = MatMul(x, g) y = Tanh(h)"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = {
        "w": np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32),
        "one": np.float32(0.1),
        "half": np.float32(0.05),
    }
    program = parsed(BODY, "float[batch,32] x", "float[batch,32] y", weights)
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    onnx.save(onnx_ir.to_proto(program.graph), path)
    return str(path)


@pytest.fixture
def built(model, tmp_path, monkeypatch):
    """built(pipeline, fast): a run in which the un-rewritten export is twice as fast at those workloads."""

    def _built(pipeline, fast, **settings):
        class Measurer:
            loud = ""

            def __init__(self, workloads, threads, target, effort, progress):
                self.workloads, self.ms, self.conditions = workloads, {}, None

            def __call__(self, before, after, only=None, processes=1, whether=False):
                undone = BODY.count("=") == len(list(after.graph.graph))
                ratio = (2.0 if undone else 0.5) if only in fast else 1.0
                return {only: speedup([ratio] * 3, [1.0] * 3)}

            def close(self):
                pass

        def compare(contestants, workloads, threads, **_):
            cell = Cell(1.0, 1.0, 1.0, speedup([1.0] * 3, [1.0] * 3), rounds=(0.001,) * 3)
            row = {workload.name: cell for workload in workloads}
            return Comparison(
                dict.fromkeys(contestants, row), dict.fromkeys(contestants, 1), threads, 3, False
            )

        monkeypatch.setattr(building_graphs, "Measurer", Measurer)
        monkeypatch.setattr(work, "compare", compare)
        wanted = {"model": model, "out": str(tmp_path / "out"), "pipeline": pipeline, "shapes": ("1", "8")}
        outcome = run(make({**wanted, **settings}), Console(quiet=True))
        record = json.loads((tmp_path / "out" / "manifest.json").read_text())
        return outcome, record, (tmp_path / "out" / "report.md").read_text()

    return _built


LOSSY = "fold-constants,quantize-dynamic{scale=tensor}"


def test_a_bundle_of_the_export_alone_is_called_that_first(built):
    outcome, record, text = built("fold-constants,quantize-dynamic", ("1", "8"))
    first = "This bundle holds the un-rewritten export of the model: nothing that was tried is faster."
    assert closing(outcome)[0] == first
    assert text.splitlines()[2] == first
    assert record["graphs"] == {"plain": "model.onnx"}
    assert record["unrewritten"] == ["1", "8"]
    assert [step["status"] for step in record["steps"]] == ["not kept", "not kept"]
    assert [row[2] for row in report.steps(outcome)[1]] == ["not kept", "not kept"]
    assert outcome.layers == ()
    assert not record["quantization"]
    assert outcome.quality.score == outcome.quality.reference
    assert record["quality"]["drop"] == 0
    assert outcome.weight_bytes[0] == outcome.weight_bytes[1]
    assert outcome.status == 0


def test_a_goal_that_only_the_candidate_misses_is_met_by_the_export(built):
    outcome, record, _ = built("fold-constants,quantize-dynamic", ("1", "8"), **{"max-drop": 0})
    assert outcome.met
    assert record["quality"]["drop"] == 0


def test_workloads_that_run_the_export_are_named(built):
    outcome, record, text = built("fold-constants", ("8",))
    assert text.splitlines()[2] == (
        "At 8 the un-rewritten export of the model runs: nothing that was tried is faster there."
    )
    assert set(record["graphs"]) == {"main", "plain"}
    assert "Calls like 1 take the graph main." in text
    assert "Calls like 8 take the graph plain, the un-rewritten export." in text
    assert {step["status"] for step in record["steps"]} == {"applied"}
    assert [row[2] for row in report.steps(outcome)[1]] == ["applied in main"]


def test_int8_and_float_never_answer_for_one_bundle(built):
    """A text would have two vectors. The export is twice as fast at one workload, as fast at the other."""
    outcome, record, _ = built("fold-constants,quantize-dynamic", ("8",))
    assert set(record["graphs"]) == {"plain"}
    assert outcome.unrewritten == ["1", "8"]
    assert outcome.quality.drop == 0


def test_a_rewritten_bundle_says_its_size_and_nothing_of_an_export(built):
    outcome, record, text = built("fold-constants,quantize-dynamic", ())
    assert "export" not in text
    assert outcome.unrewritten == []
    assert outcome.weight_bytes[0] < outcome.weight_bytes[1]
    assert record["weight_bytes"] == list(outcome.weight_bytes)
    held, original = (size / 1e6 for size in outcome.weight_bytes)
    assert f"Its weights take {held:.1f} MB; the original's {original:.1f} MB." in text


def test_a_pipeline_that_changes_nothing_is_called_that(built):
    _, _, text = built("eliminate-identities", ())
    assert "This bundle holds the un-rewritten export of the model: no pass changed it." in text


def test_an_outcome_and_its_program_are_shown_in_sentences(built):
    outcome, _, _ = built("fold-constants", ())
    assert repr(outcome) == "\n".join(closing(outcome))
    assert repr(outcome.source).startswith("Program(onnx, features: x float32[")


def test_what_was_asked_for_its_size_is_not_given_up_for_speed(built):
    """No clock decides on weights of 8 bits: the export, twice as fast here, would be four times as large."""
    outcome, record, text = built("fold-constants,quantize-weights{bits=8,group=32}", ("1", "8"))
    assert outcome.unrewritten == []
    assert set(record["graphs"]) == {"main"}
    assert outcome.weight_bytes[0] < outcome.weight_bytes[1] / 3
    assert "kept for its size" not in text  # in the comparison both are as fast


def test_that_it_is_slower_is_said(built):
    outcome, _, _ = built("fold-constants,quantize-weights{bits=8,group=32}", ("1", "8"))
    slow = replace(next(iter(outcome.comparison.cells["main"].values())), rounds=(0.002,) * 3)
    cells = {**outcome.comparison.cells, "main": dict.fromkeys(outcome.dispatch, slow)}
    said = closing(replace(outcome, comparison=replace(outcome.comparison, cells=cells)))
    told = "2.00 times as fast at 1, 2.00 times as fast at 8"
    assert f"Kept for its size: the un-rewritten export is {told}." in said


def test_folding_of_a_constant_spares_no_weights(built):
    outcome, _, _ = built("fold-constants", ("1", "8"))
    assert outcome.unrewritten == ["1", "8"]


def test_what_a_preset_spares_is_given_up_for_speed(built, monkeypatch):
    """Nobody asked for it: a table stored twice, that clean-up makes one, keeps no slow int8."""
    monkeypatch.setattr(building_graphs, "spares_weights", lambda steps: True)
    outcome, _, _ = built(None, ("1", "8"), preset="balanced")
    assert outcome.unrewritten == ["1", "8"]

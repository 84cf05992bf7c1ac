"""`--quick`: passes are trusted, and what they make together is held against the export; a report says so."""

import pytest
from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools import report
from graphwright.tools.build import building_graphs, work
from graphwright.tools.build.verdict import closing
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.verbs import optimize as driver

FUSED = "fuse-attention,remove-padding"
SAID = "A first look: no pass was timed by itself"


@pytest.fixture(scope="module")
def program(encoder_directory):
    return Pipeline.parse("to-onnx").run(capture(encoder_directory)).program


@pytest.fixture
def looked(program, monkeypatch):
    """looked(export, **settings): (outcome, pairs that were timed) where the export measures so many times as
    fast as what was made of it."""
    timed = []

    def _looked(export, **settings):
        class Measurer:
            loud = ""

            def __init__(self, workloads, threads, target, effort, progress):
                self.workloads, self.ms, self.conditions = workloads, {}, None

            def __call__(self, before, after, only=None, processes=1, whether=False):
                timed.append((before, after, only))
                gone = _attentions(before) - _attentions(after)
                ratio = export if gone > 0 else 1 / export if gone < 0 and only else 1.0
                names = [only] if only else [workload.name for workload in self.workloads]
                return {name: speedup([ratio] * 3, [1.0] * 3) for name in names}

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
        monkeypatch.setattr(driver, "capture", lambda *_, **__: program)
        wanted = {"model": "encoder.onnx", "pipeline": FUSED, "shapes": ("1x16", "mixed:4"), **settings}
        return driver.run(make(wanted), Console(quiet=True)), timed

    return _looked


def _attentions(program):
    return sum(node.op_type in ("Attention", "MultiHeadAttention") for node in program.graph.graph)


def test_no_pass_is_timed_and_every_workload_is_held_against_the_export_once(looked):
    outcome, timed = looked(0.5, quick=True)
    assert [each.step.status for each in outcome.steps] == ["applied"] * 2
    assert not any(each.step.ratios for each in outcome.steps)
    assert sorted(only for _, _, only in timed) == ["1x16", "mixed:4"]
    assert all(_attentions(before) == 0 and _attentions(after) == 2 for before, after, _ in timed)
    assert SAID in report.markdown(outcome)


def test_what_cannot_gain_from_a_pass_does_without_it_all_the_same(looked):
    outcome, _ = looked(0.5, quick=True)
    assert outcome.dispatch == {"1x16": "for-1x16", "mixed:4": "main"}
    operators = {each.name: [node.op_type for node in each.program.graph.graph] for each in outcome.graphs}
    assert "GatherND" in operators["main"] or "Gather" in operators["main"]
    assert len(operators["for-1x16"]) < len(operators["main"])


def test_another_graph_is_taken_up_where_it_parts_from_the_first(looked, monkeypatch):
    ran, real = [], Pipeline.run
    monkeypatch.setattr(Pipeline, "run", lambda self, *a, **k: ran.append(str(self)) or real(self, *a, **k))
    outcome, _ = looked(0.5, quick=True, pipeline=f"{FUSED},eliminate-dead-code,quantize-dynamic")
    assert [text.partition(",")[0] for text in ran] == ["fuse-attention", "eliminate-dead-code"]
    served = {each.step.text.partition("{")[0]: each.graphs for each in outcome.steps}
    assert served["fuse-attention"] == served["quantize-dynamic"] == ("main", "for-1x16")
    assert served["remove-padding"] == ("main",)


def test_an_export_that_measures_faster_is_kept(looked):
    outcome, _ = looked(2.0, quick=True)
    assert outcome.unrewritten == ["1x16", "mixed:4"]
    assert closing(outcome)[0].startswith("This bundle holds the un-rewritten export of the model")


def test_without_it_passes_are_timed_one_by_one(looked):
    outcome, timed = looked(0.5)
    assert [bool(each.step.ratios) for each in outcome.steps] == [True, True]
    assert len(timed) > 2
    assert SAID not in report.markdown(outcome)


def test_one_graph_is_made_where_bytes_decide(looked):
    outcome, timed = looked(0.5, quick=True, pipeline=None, preset="small")
    assert [each.name for each in outcome.graphs] == ["main"]
    assert not timed

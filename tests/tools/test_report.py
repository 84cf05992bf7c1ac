"""The report says what was measured: no number in it is made up, none is left out."""

from dataclasses import replace
from pathlib import Path

import pytest
from graphwright.backends.bundles.bundle import Variant
from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.ir.errors import ContractError, PassError
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Exact, Lossy, Ratio, Step
from graphwright.tools import report
from graphwright.tools.build.outcome import Outcome
from graphwright.tools.build.portability import Portability
from graphwright.tools.build.steps import PLAIN, PYTORCH, Quality, StepEvidence
from graphwright.tools.build.verdict import closing
from graphwright.tools.config import make, resolve
from graphwright.tools.judge.neighbours import Neighbours
from graphwright.tools.judge.quality import Score


@pytest.fixture
def outcome():
    seconds = {
        (PYTORCH, "1x8"): 0.004, (PYTORCH, "8x8"): 0.020,
        (PLAIN, "1x8"): 0.002, (PLAIN, "8x8"): 0.020,
        ("main", "1x8"): 0.001, ("main", "8x8"): 0.010,
        ("without-p", "1x8"): 0.0005, ("without-p", "8x8"): 0.030,
    }  # fmt: skip
    names = (PYTORCH, PLAIN, "main", "without-p")
    times = {key: [value, value * 1.1, value * 0.9] for key, value in seconds.items()}
    comparison = make_comparison(names, ("1x8", "8x8"), times)
    steps = (
        StepEvidence(
            Step("fold-constants", Exact(1e-5), "applied", 0.5, 0.25, 10_000_000, 9_000_000, {"nodes": 3})
        ),
        StepEvidence(
            Step(
                "p{a=1,b=2}", Lossy(), "applied", ratios={"1x8": Ratio(0.5, 0.5, 0.5), "8x8": Ratio(3, 3, 3)}
            ),
            {"1x8": 1.25, "8x8": 10.5},
            Score("Spearman", 81.987),
        ),
        StepEvidence(Step("q", Exact(), "slower", notes=("a note | with a bar",))),
        StepEvidence(Step("r", Exact(), "rolled back", error=ContractError("'r' broke its contract"))),
    )
    return Outcome(
        config=resolve(make({"model": "models/m", "max-drop": 0.5, "threads": 2})),
        source=Program(None, "onnx", (), ()),
        pipeline="fold-constants,p{a=1,b=2},q,r",
        steps=steps,
        graphs=(Variant("main", None), Variant("without-p", None)),
        dispatch={"1x8": "without-p", "8x8": "main"},
        comparison=comparison,
        portability=Portability(()),
        layers=(),
        quality=Quality(Score("Spearman", 82.5), Score("Spearman", 81.75), 0.75, 900, "d.csv"),
        met=False,
        notes=("a guess about d.csv",),
        seconds=12.0,
        bundle=Path("out"),
    )


def make_comparison(names, workloads, times):
    def cell(name, workload):
        own, base = times[name, workload], times[names[0], workload]
        return Cell(1e3 * own[0], 1e3 * min(own), 1e3 * max(own), speedup(base, own), rounds=tuple(own))

    cells = {name: {workload: cell(name, workload) for workload in workloads} for name in names}
    return Comparison(cells, dict.fromkeys(names, 10**8), threads=2, rounds=3, in_turn=False)


def test_each_contestant_has_its_ms_and_its_ratio_over_the_first(outcome):
    head, rows = report.speed(outcome)
    assert list(head[1:]) == ["1x8", "8x8"]
    table = {row[0]: list(row[1:]) for row in rows}
    assert table[PYTORCH] == ["4.00", "20.00"]
    assert table[PLAIN][0].startswith("2.00 (2.00, ")
    assert table["bundle"][0].startswith("0.50 (8.00, ")
    assert table["bundle"][1].startswith("10.00 (2.00, ")
    assert table["graph"] == ["without-p", "main"]


def test_each_step_has_its_contract_result_cost_and_effect(outcome):
    head, rows = report.steps(outcome)
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    assert cells[0] == {
        "pass": "fold-constants", "contract": "≤ 1e-05", "result": "applied", "s": "0.8", "MB": "9.0",
        "ms 1x8": "", "ms 8x8": "", "quality": "",
    }  # fmt: skip
    assert cells[1]["ms 1x8"] == "1.25 (0.50)"
    assert cells[1]["ms 8x8"] == "10.5 (3.00)"
    assert cells[1]["quality"] == "81.99"
    assert [cell["result"] for cell in cells] == ["applied", "applied", "slower, undone", "rolled back"]


def test_what_a_terminal_shows_fits_80_columns(outcome):
    from io import StringIO

    from rich.console import Console

    long = replace(outcome.steps[1].step, text="quantize-weights{bits=4,group=128,embeddings=4,scale=token}")
    outcome = replace(outcome, steps=(*outcome.steps, replace(outcome.steps[1], step=long)))
    shown = StringIO()
    console = Console(file=shown, width=80)
    for each in report.tables(outcome)[:3]:
        console.print(each, markup=False, highlight=False)
    lines = [line.rstrip() for line in shown.getvalue().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + len(outcome.steps) + 2 + len(outcome.dispatch)  # no row folds
    assert lines[-1].split() == ["8x8", "20.00", "20.00", "10.00", "main"]
    assert any(line.startswith("quantize-weights{bits=4") and "…" in line for line in lines)


def test_contracts_that_broke_are_counted_as_faults_of_ours(outcome):
    assert "Contracts that passes broke: 1. It was undone; it is a fault of graphwright's" in report.markdown(
        outcome
    )
    assert outcome.to_json()["faults"] == ["'r' broke its contract"]
    refused = replace(outcome.steps[3].step, error=PassError("'r' can't do that"))
    steps = (*outcome.steps[:3], replace(outcome.steps[3], step=refused))
    assert "Contracts that passes broke" not in report.markdown(replace(outcome, steps=steps))


def test_the_verdict_is_called_what_it_is(outcome):
    text = report.markdown(outcome)
    assert "NOT met" in text
    assert "0.75 points are lost" in text
    assert "Spearman 81.75; the original's is 82.50" in text
    assert "Rolled back: 'r' broke its contract." in text
    assert "- a guess about d.csv" in text
    assert "- q: a note | with a bar" in text
    assert outcome.status == 3
    assert len(outcome.failures) == 2
    for line in text.splitlines():
        if line.startswith("| ") and "pass" not in line:
            assert line.count(" | ") in (2, 7)


@pytest.mark.parametrize(
    ("neighbours", "pipeline", "words"),
    [
        (
            Neighbours({"in batches of 8": 0.9995}, {"in batches of 8": 1.0}, 0, 8, "texts"),
            None,
            "depends on the",
        ),
        (Neighbours({"in batches of 8": 0.9995}, {"in batches of 8": 0.999}, 0, 8, "texts"), None, ""),
        (Neighbours({"in batches of 8": 0.9995}, {"in batches of 8": 1.0}, 0, 8, "texts"), "p", ""),
        (Neighbours({}, {}, 2e-4, 8, "texts"), None, "0.0002 away from them (limit 0.0001)"),
        (Neighbours({}, {}, float("inf"), 8, "texts"), None, "inf away from them"),
        (Neighbours({}, {}, 2e-4, 8, "texts", 1e-3), None, ""),
        (Neighbours({}, {}, 2e-4, 8, "texts", None), None, ""),
    ],
)
def test_a_promise_that_the_bundle_does_not_keep_is_no_success(outcome, neighbours, pipeline, words):
    """Vectors that depend on the batch, or outputs that an exact bundle moved."""
    exact = [each for each in outcome.steps if isinstance(each.step.effect, Exact) and not each.step.error]
    config = outcome.config.model_copy(update={"pipeline": pipeline})
    found = replace(outcome, steps=tuple(exact), met=None, neighbours=neighbours, config=config)
    assert found.status == (3 if words else 0)
    assert all(words in sentence for sentence in found.failures)
    assert len(found.failures) == bool(words)


def test_lossy_passes_promise_no_distance(outcome):
    moved = replace(
        outcome, steps=outcome.steps[:2], met=None, neighbours=Neighbours({}, {}, 0.5, 8, "texts")
    )
    assert moved.status == 0


def test_a_loud_machine_is_in_the_verdict(outcome):
    assert not any("busy with other work" in line for line in closing(outcome))
    cells = {
        name: {work: replace(cell, disturbed=(True, False, False)) for work, cell in row.items()}
        for name, row in outcome.comparison.cells.items()
    }
    loud = replace(outcome, comparison=replace(outcome.comparison, cells=cells))
    assert loud.comparison.loud in closing(loud)
    assert "8 of 24 turns were disturbed" in loud.comparison.loud

"""Instruments: what they record, and that bisection finds the one bad rewrite among good ones."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.text import text
from graphwright.passes.manager.bisect import Bisect, bisect
from graphwright.passes.manager.contract import Context, Exact, Pass, Result
from graphwright.passes.manager.instruments import Dump, Statistics, Timing
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.reproducer import Reproducer
from handmade import parsed

LAYERS = 9


def stack():
    """y = x + 1 + 1 + ... in nine layers."""
    names = ["x", *(f"h{i}" for i in range(1, LAYERS)), "y"]
    nodes = [f"{after} = Add({before}, one)" for before, after in pairwise(names)]
    return parsed(";".join(nodes).replace(";", "\n"), weights={"one": np.ones(1, np.float32)})


@dataclass(frozen=True)
class ReplaceAdds(Pass):
    """Write x + 1 as x - -1, and as x - 1 in the layers named in `wrong`."""

    name: ClassVar[str] = "replace-adds"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact()

    wrong: tuple[str, ...] = ()
    drift: float = 0.0
    always_fails: bool = False

    def run(self, program, context):
        from graphwright.ir.onnx.graph import Editor

        editor, count = Editor(program.graph), 0
        good = editor.initializer(np.full(1, -1 + self.drift, np.float32), "minus")
        bad = editor.initializer(np.ones(1, np.float32), "plus")
        for node in program.graph.graph:
            if node.op_type == "Add" and context.allow(f"replace {node.outputs[0].name}"):
                node.op_type = "Sub"
                node.replace_input_with(1, bad if node.outputs[0].name in self.wrong else good)
                count += 1
        if self.always_fails:
            raise RuntimeError("no luck")
        if not count:
            editor.prune()
        return Result(program, count > 0, {"adds replaced": count})


def test_the_pass_itself_is_right():
    assert Pipeline([ReplaceAdds()]).run(stack()).ok


@pytest.mark.parametrize("wrong", [1, 2, 5, LAYERS - 1, LAYERS])
def test_bisect_finds_the_rewrite(wrong):
    name = f"h{wrong}" if wrong < LAYERS else "y"
    pipeline = Pipeline([ReplaceAdds(wrong=("nothing",)), ReplaceAdds(wrong=(name,))])
    program = stack()
    before = program.fingerprint()
    first, second = pipeline.passes
    culprit = bisect(Pipeline([second]), program)
    assert (culprit.number, culprit.total, culprit.rewrite) == (wrong, LAYERS, f"replace {name}")
    assert "moved by" in culprit.reason
    assert str(second.wrong[0]) in culprit.text
    assert program.fingerprint() == before
    assert bisect(Pipeline([first]), program) is None


def test_bisect_finds_the_pass_before_the_rewrite():
    cleaning = Pipeline.parse("eliminate-dead-code,fold-constants").passes
    culprit = bisect(Pipeline([*cleaning, ReplaceAdds(wrong=("h3",))]), stack())
    assert culprit.text == "replace-adds{wrong=(h3,)}"
    assert culprit.rewrite == "replace h3"


def test_bisect_by_a_judge_finds_what_adds_up():
    """Each pass keeps its contract (5e-5 a layer), the sum of all does not keep the judge's."""

    def judge(program):
        from graphwright.ir.execute import execute

        found = execute(program, [{"x": np.zeros((1, 1), np.float32)}])[0]["y"].item()
        return f"off by {abs(found - LAYERS):.2g}" if abs(found - LAYERS) > 2.2e-5 else None

    culprit = bisect(Pipeline([ReplaceAdds(drift=5e-6)]), stack(), judge=judge)
    assert Pipeline([ReplaceAdds(drift=5e-6)]).run(stack()).ok
    assert culprit.number == 5  # four layers, 2e-5, are allowed
    assert "off by" in culprit.reason


def test_bisect_blames_the_pass_when_no_rewrite_is_to_blame():
    culprit = bisect(Pipeline([ReplaceAdds(always_fails=True)]), stack())
    assert culprit.rewrite is None
    assert "no luck" in str(culprit)


def test_bisect_as_an_instrument():
    run = Pipeline([ReplaceAdds(wrong=("h7",))]).run(stack(), instruments=[Bisect()])
    assert "rewrite 7 of 9 (replace h7)" in run.steps[0].notes[-1]


def test_dump(tmp_path):
    run = Pipeline([ReplaceAdds()]).run(stack(), instruments=[Dump(tmp_path / "dump")])
    files = {path.name: path.read_text() for path in (tmp_path / "dump").iterdir()}
    changed = files.pop("01-replace-adds.diff").splitlines()
    assert files == {"00-input.txt": text(stack()), "01-replace-adds.txt": text(run.program)}
    taken, put = ([line for line in changed[2:] if line.startswith(sign)] for sign in "-+")
    assert len(taken) == len(put) == LAYERS
    assert [line.replace("sub", "add").replace("-1", "1") for line in put] == [
        line.replace("-", "+", 1) for line in taken
    ]


def test_a_step_names_its_rewrites_where_they_stay():
    run = Pipeline([ReplaceAdds()]).run(stack(), Context(allow=lambda rewrite: not rewrite.endswith("2")))
    assert run.steps[0].rewrites == (*(f"replace h{i}" for i in range(1, LAYERS) if i != 2), "replace y")
    undone = Pipeline([ReplaceAdds(wrong=("h2",))]).run(stack())
    assert undone.steps[0].status == "rolled back"
    assert undone.steps[0].rewrites == ()


def test_timing_and_statistics():
    timing, statistics = Timing(), Statistics()
    Pipeline([ReplaceAdds(), ReplaceAdds()]).run(stack(), instruments=[timing, statistics])
    assert [name for name, *_ in timing.rows] == ["replace-adds", "replace-adds"]
    assert all(run > 0 and check > 0 for _, run, check in timing.rows)
    assert statistics.rows[0] == ("replace-adds", {"adds replaced": 9}, {"Add": -9, "Sub": 9})
    assert statistics.rows[1][2] == {}
    assert "adds replaced 9, Add -9, Sub +9" in str(statistics)
    assert "replace-adds" in str(timing)


def test_reproducer_of_an_onnx_pass(tmp_path):
    pipeline = Pipeline([*Pipeline.parse("eliminate-dead-code").passes, ReplaceAdds(wrong=("h2",))])
    Pipeline(pipeline.passes).run(stack(), Context(seed=7), instruments=[Reproducer(tmp_path / "case")])
    case = tmp_path / "case"
    assert (case / "pipeline.txt").read_text() == "replace-adds{wrong=(h2,)}\n"
    assert "ContractError" in (case / "error.txt").read_text()
    readme = (case / "README.md").read_text()
    assert "optimize model.onnx" in readme
    assert "--seed 7" in readme
    assert str(pipeline) in readme
    again = onnx_ir.from_proto(onnx.load(case / "model.onnx"))
    assert [node.op_type for node in again.graph] == ["Add"] * LAYERS


def test_no_reproducer_without_a_failure(tmp_path):
    Pipeline([ReplaceAdds()]).run(stack(), instruments=[Reproducer(tmp_path / "case")])
    assert not (tmp_path / "case").exists()


def test_reproducer_of_an_fx_pass(tmp_path):
    @dataclass(frozen=True)
    class Raises(Pass):
        name: ClassVar[str] = "raises"
        source: ClassVar = "fx"
        target: ClassVar = "fx"
        effect: ClassVar = Exact()

        def run(self, program, context):
            raise ZeroDivisionError("by zero")

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    program = capture(module, inputs=(torch.randn(2, 4),))
    Pipeline([Raises()]).run(program, instruments=[Reproducer(tmp_path)])
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(5, 4)
    torch.testing.assert_close(loaded(x)[0], module(x))
    assert "ZeroDivisionError" in (tmp_path / "error.txt").read_text()

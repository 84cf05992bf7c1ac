"""A preset that begins before to-onnx: what the clock says of each workload decides on its graph."""

from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.tools.build import building_graphs, presets, work
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.verbs import optimize as driver
from one_layer import OneLayer, inputs


def _windows(program):
    return not any("blocks." in name for name in program.graph.graph.initializers)


class Measurer:
    """Blocks are half as fast as a window at 1x130, and twice as fast at 1x300."""

    loud = ""

    def __init__(self, workloads, threads, target, effort, progress):
        self.workloads, self.ms, self.conditions = workloads, {}, None

    def __call__(self, before, after, only=None, processes=1, whether=False):
        names = [only] if only else [workload.name for workload in self.workloads]
        taken = lambda program, name: 2.0 if _windows(program) == (name == "1x300") else 1.0
        return {name: speedup([taken(before, name)] * 3, [taken(after, name)] * 3) for name in names}

    def close(self):
        pass


def _compared(contestants, workloads, threads, **_):
    cell = Cell(1.0, 1.0, 1.0, speedup([1.0] * 3, [1.0] * 3), rounds=(0.001,) * 3)
    row = {workload.name: cell for workload in workloads}
    return Comparison(dict.fromkeys(contestants, row), dict.fromkeys(contestants, 1), threads, 3, False)


def test_calls_that_blocks_slow_down_do_without(monkeypatch):
    monkeypatch.setattr(building_graphs, "Measurer", Measurer)
    monkeypatch.setattr(work, "compare", _compared)
    monkeypatch.setattr(presets, "WITHOUT_TEXTS", {"onnxruntime": {"exact": ("to-onnx",)}})
    wanted = {"model": "OneLayer", "preset": "exact", "shapes": ("1x130", "1x300")}
    outcome = driver.run(make(wanted), Console(quiet=True), OneLayer(8).eval(), inputs())
    assert outcome.pipeline == "block-attention,to-onnx"
    assert outcome.dispatch["1x300"] == "main"
    assert outcome.dispatch["1x130"] != "main"
    graphs = {each.name: each.program for each in outcome.graphs}
    assert {name: _windows(graphs[graph]) for name, graph in outcome.dispatch.items()} == {
        "1x130": True,
        "1x300": False,
    }
    step = outcome.steps[0]
    assert {name: ratio.median for name, ratio in step.step.ratios.items()} == {"1x130": 0.5, "1x300": 2.0}
    assert step.graphs == ("main",)

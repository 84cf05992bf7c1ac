"""prune-ffn: which parameters shrink and to what widths, and what it refuses."""

import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PipelineError
from graphwright.ir.fx.graph import attribute
from graphwright.ir.view import view
from graphwright.passes.manager.pipeline import Pipeline
from pruning import run, shapes
from torch import nn


def test_parameters_keep_their_names():
    before, after = (
        shapes(zoo.fx_program("bert")),
        shapes(run("prune-ffn{importance=magnitude,ratio=0.5,multiple=1}", zoo.fx_program("bert")).program),
    )
    assert before.keys() == after.keys()
    different = {name for name in before if before[name] != after[name]}
    assert different == {
        f"encoder.layer.{layer}.{part}"
        for layer in (0, 1)
        for part in ("intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight")
    }
    assert sum(after[f"encoder.layer.{layer}.intermediate.dense.bias"][0] for layer in (0, 1)) == 72


def test_widths_are_multiples():
    done = run("prune-ffn{importance=magnitude,ratio=0.4,multiple=16}", zoo.fx_program("bert"))
    widths = [f.width for f in recognise(view(done.program)).feed_forward]
    assert all(width % 16 == 0 for width in widths)
    assert sum(widths) >= 0.6 * 144


def test_an_importance_that_is_none_is_refused():
    with pytest.raises(PipelineError, match="magnitude"):
        Pipeline.parse("prune-ffn{importance=weight}")


class Rolled(nn.Module):
    """A feed-forward behind an operator that no rule describes."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        x = torch.roll(x, 1, dims=-1)
        return x + self.down(torch.relu(self.up(x)))


class ByVariance(nn.Module):
    """A feed-forward behind a norm that is written with torch.var."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(8))
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        spread = torch.sqrt(torch.var(x, -1, keepdim=True, unbiased=False) + 1e-5)
        x = (x - x.mean(-1, keepdim=True)) / spread * self.scale + self.shift
        return x + self.down(torch.relu(self.up(x)))


def test_a_norm_by_the_variance_stands_in_nobodys_way():
    torch.manual_seed(0)
    module, x = ByVariance(), torch.randn(2, 3, 8)
    program = capture(module, inputs={"x": x})
    assert "var" in {value.op for value in view(program)}
    done = run("prune-ffn{importance=magnitude,ratio=0.5,multiple=1}", program)
    left = attribute(done.program.graph, "up.weight")
    kept = [unit for unit, row in enumerate(module.up.weight) if any(torch.equal(row, each) for each in left)]
    assert len(left) == len(kept) == 12
    with torch.no_grad():
        module.down.weight[:, [unit for unit in range(24) if unit not in kept]] = 0
        torch.testing.assert_close(done.program.graph(x)[0], module(x), atol=2e-6, rtol=1e-6)


def test_an_unknown_operator_stands_in_the_way_of_what_it_touches_alone():
    program = capture(Rolled(), inputs={"x": torch.randn(2, 3, 8)})
    done = run("prune-ffn{importance=random,ratio=0.5,multiple=1}", program)
    assert attribute(done.program.graph, "up.weight").shape == (12, 8)
    refused = run("prune-hidden{importance=magnitude,multiple=1}", program)
    assert "aten.roll" in str(refused.steps[0].error)

"""fold-affine: the same function with fewer operators, and where it stays out."""

import copy
import re

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.simplify.fold_affine import FoldAffine
from graphwright.passes.simplify.nonorm import Nonorm
from handmade import golden
from torch import nn


class Map(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.gamma + self.beta


class Around(nn.Module):
    """What `forward` does to x (batch, length, 8) with a map and two products."""

    def __init__(self, forward, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.map, self.other = Map(8), Map(8)
        self.a, self.b = nn.Linear(8, 8, bias=bias), nn.Linear(8, 8, bias=bias)
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def folded(forward, bias=True):
    """(the module, its program, the result of the pass)."""
    module = Around(forward, bias).eval()
    program = capture(module, inputs={"x": torch.randn(2, 3, 8)})
    return module, program, FoldAffine().run(program.clone(), Context())


def same(module, program):
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(x.double()).numpy()
    found = execute(program, [{"x": x.numpy()}])[0][program.outputs[0]]
    np.testing.assert_allclose(found, expected, atol=3e-6, rtol=1e-6)


def maps(program):
    return sum(norm.kind == "no_norm" for norm in recognise(view(program)).norm)


def both(m, y):
    return m.a(y) * torch.sigmoid(m.b(y))


def added(m, y):
    return y + m.a(y)


def twice(m, h):
    return torch.relu(m.map(h)) * torch.tanh(h)


CASES = {
    "into all that read it": (lambda m, x: both(m, m.map(x)), 2),
    "past a dropout": (lambda m, x: m.a(nn.functional.dropout(m.map(x), 0.1, m.training)), 1),
    "into a plain matrix": (lambda m, x: torch.relu(m.map(x) @ m.matrix), 1),
    "back": (lambda m, x: torch.relu(m.map(m.a(x))), 1),
    "back, out of a plain matrix": (lambda m, x: torch.relu(m.map(x @ m.matrix)), 1),
    "back, what a residual reads": (lambda m, x: x + m.map(m.a(x)), 1),
    "one before and one after": (lambda m, x: torch.relu(m.other(m.a(m.map(x)))), 2),
    "one after another": (lambda m, x: torch.relu(m.a(m.map(m.other(torch.tanh(x))))), 2),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_map_goes_into_the_products_beside_it(name, bias):
    forward, count = CASES[name]
    module, program, done = folded(forward, bias)
    assert maps(program) >= 1
    assert maps(done.program) == 0
    assert done.statistics["products that took them"] == count
    same(module, done.program)
    assert not FoldAffine().run(done.program.clone(), Context()).modified


STAYS = {
    "a residual": (lambda m, x: added(m, m.map(x)), r"\(add\) needs its result"),
    "an output": (lambda m, x: m.map(torch.relu(x)), "it is an output"),
    "no product": (lambda m, x: torch.relu(m.map(torch.tanh(x))), r"\(relu\) needs its result"),
    "another reader of the product before": (lambda m, x: twice(m, m.a(x)), "reads linear too"),
    "a weight of two layers": (
        lambda m, x: m.a(torch.relu(m.a(m.map(x)))),
        "a_weight serves other layers too",
    ),
    "a bias of two layers": (
        lambda m, x: nn.functional.linear(torch.relu(m.a(m.map(x))), m.b.weight, m.a.bias),
        "a_bias serves other layers too",
    ),
    "a computed weight": (
        lambda m, x: nn.functional.linear(m.map(x), torch.tanh(m.a.weight)),
        "tanh is computed",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_where_it_stays_it_says_why(name):
    forward, reason = STAYS[name]
    _, program, done = folded(forward)
    assert maps(program) == 1
    assert not done.modified
    assert done.program.fingerprint() == program.fingerprint()
    (note,) = done.notes
    assert "stays: " in note
    assert re.search(reason, note), note


LEFT = {"gpt2": 1, "llama": 0, "modernbert": 2, "t5": 2, "vit": 1, "mobilebert": 7, "bert": 5, "albert": 4}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_of_a_models_norms(name):
    """By architecture, norms that are still there: those of a stream that is summed on, and of outputs."""
    program = zoo.fx_program(name)
    if name != "mobilebert":
        program = Nonorm(init="weights").run(program.clone(), Context()).program
    run = Pipeline.parse("fold-affine").run(program, Context())
    assert run.ok
    assert maps(run.program) == LEFT[name] == len(run.steps[0].notes)
    before, after = (recognise(view(p)).summary() for p in (program, run.program))
    assert {**before, "norm": LEFT[name]} == after


def test_other_families_go_on_from_there():
    program = Nonorm(init="weights").run(zoo.fx_program("gpt2").clone(), Context()).program
    run = Pipeline.parse("fold-affine,prune-ffn{importance=magnitude,multiple=1},to-onnx").run(
        program, Context()
    )
    assert run.ok
    assert all(step.status == "applied" for step in run.steps)


def test_golden():
    program = capture(_exact(), inputs={"x": torch.randn(2, 3, 8)})
    after = FoldAffine().run(program.clone(), Context()).program
    golden("simplify/fold-affine", f"# before\n{text(program)}\n# after\n{text(after)}")


def _exact():
    """Numbers of which all products are exact, so that digests are the same everywhere."""
    module = Around(lambda m, x: x + m.b(m.map(torch.relu(m.other(m.a(x))))))
    for number, parameter in enumerate(module.parameters()):
        parameter.data = (torch.arange(parameter.numel()) % 7 + number).reshape(parameter.shape) / 4
    return module.eval()

"""fold-batch-norm: the same function without batch norms, and where they stay."""

import copy
import re

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.simplify.fold_batch_norm import FoldBatchNorm
from handmade import golden
from torch import nn

SIGNAL = (2, 6, 9)


class Module(nn.Module):
    """What `body` does to x (batch, 6, length) with these parts."""

    def __init__(self, body, shape, affine=True):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.shape = body, shape
        self.norm, self.flat = nn.BatchNorm1d(6, affine=affine), nn.BatchNorm1d(6, eps=0.1)
        self.conv, self.padded = nn.Conv1d(6, 6, 3), nn.Conv1d(6, 6, 3, padding=1, bias=False)
        self.grouped, self.apart = nn.Conv1d(6, 12, 3, groups=3), nn.Conv1d(6, 6, 1, groups=6)
        self.linear, self.bare = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.picture, self.over = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        for norm in (self.norm, self.flat, self.over):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.1, 2)
            if norm.affine:
                norm.weight.data.normal_()
                norm.bias.data.normal_()

    def forward(self, x):
        return self.body(self, x)


def folded(body, shape=SIGNAL, affine=True):
    module = Module(body, shape, affine).eval()
    program = capture(module, inputs={"x": torch.randn(shape)})
    return module, program, FoldBatchNorm().run(program.clone(), Context())


def left(program):
    return sum("batch_norm" in value.op for value in view(program))


CASES = {
    "back": (lambda m, x: m.norm(m.conv(x)), SIGNAL),
    "back, padded, without bias": (lambda m, x: m.norm(m.padded(x)), SIGNAL),
    "back, one group a channel": (lambda m, x: m.norm(m.apart(x)), SIGNAL),
    "back, two axes": (lambda m, x: torch.relu(m.over(m.picture(x))), (2, 6, 5, 5)),
    "back, a product": (lambda m, x: torch.relu(m.norm(m.bare(x))), (3, 6)),
    "back, past a transposition": (
        lambda m, x: torch.tanh(m.norm(m.linear(x).transpose(1, 2)).transpose(1, 2)), (2, 9, 6),
    ),
    "on": (lambda m, x: m.conv(m.norm(torch.relu(x))), SIGNAL),
    "on, in groups": (lambda m, x: m.grouped(m.norm(torch.relu(x))), SIGNAL),
    "on, twice": (lambda m, x: both(m, m.norm(torch.relu(x))), SIGNAL),
    "on, a product": (lambda m, x: m.bare(m.norm(torch.relu(x))), (3, 6)),
    "one of each": (lambda m, x: m.flat(m.conv(m.norm(torch.relu(x)))), SIGNAL),
    "one after another": (lambda m, x: m.conv(m.flat(m.norm(torch.relu(x)))), SIGNAL),
}  # fmt: skip


def both(m, y):
    return torch.cat([m.conv(y), m.grouped(y)], dim=1)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_norm_goes_into_what_stands_beside_it(name, affine):
    body, shape = CASES[name]
    module, program, done = folded(body, shape, affine)
    assert left(program) > 0
    assert left(done.program) == 0
    assert done.statistics["batch norms left"] == 0
    x = torch.randn(3, *shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(x.double()).numpy()
    found = execute(done.program, [{"x": x.numpy()}])[0][program.outputs[0]]
    np.testing.assert_allclose(found, expected, atol=4e-6, rtol=2e-6)
    assert not FoldBatchNorm().run(done.program.clone(), Context()).modified


STAYS = {
    "padding": (lambda m, x: m.padded(m.norm(torch.relu(x))), "pads with zeros, which the norm moves"),
    "two readers": (lambda m, x: added(m, torch.relu(m.norm(torch.relu(x)))), r"\(relu\) is no convolution"),
    "two readers of the convolution": (lambda m, x: twice(m, m.conv(x)), "tanh reads conv1d too"),
    "an output": (lambda m, x: m.norm(torch.relu(x)), "is an output"),
    "a weight of two": (
        lambda m, x: m.conv(torch.relu(m.norm(m.conv(x)))),
        "conv_weight serves other layers",
    ),
    "as a weight's factor": (
        lambda m, x: m.conv(x) * m.norm(torch.relu(x))[..., 2:],
        "needs its result|is no",
    ),
}


def added(m, y):
    return y[..., :7] + m.conv(y)


def twice(m, h):
    return m.norm(h) + torch.tanh(h)


@pytest.mark.parametrize("name", STAYS)
def test_where_it_stays_it_says_why(name):
    body, reason = STAYS[name]
    _, program, done = folded(body)
    assert left(program) == 1
    assert not done.modified
    assert done.program.fingerprint() == program.fingerprint()
    (note,) = done.notes
    assert re.search(reason, note), note


def test_one_that_trains_stays():
    _, program, _ = folded(CASES["back"][0])
    run = Pipeline.parse("set-mode{training=true},fold-batch-norm").run(program, Context())
    assert run.steps[-1].status == "no change"
    assert "it is in training mode: put set-mode{training=false} before" in run.steps[-1].notes[0]
    run = Pipeline.parse("set-mode{training=false},fold-batch-norm,to-onnx").run(program, Context())
    assert run.ok
    assert not left(run.program)


def test_golden():
    module = Module(CASES["on"][0], SIGNAL)
    for parameter in module.parameters():
        parameter.data = (torch.arange(parameter.numel()) % 5).reshape(parameter.shape) / 4
    module.norm.running_mean.copy_(torch.arange(6) / 2)
    module.norm.running_var.fill_(0.25)
    module.norm.eps = 0.0
    program = capture(module.eval(), inputs={"x": torch.randn(SIGNAL)})
    after = FoldBatchNorm().run(program.clone(), Context()).program
    golden("simplify/fold-batch-norm", f"# before\n{text(program)}\n# after\n{text(after)}")

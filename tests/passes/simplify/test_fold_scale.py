"""fold-scale: the same function without multiplications by numbers, and where they stay."""

import copy
import math
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
from graphwright.passes.simplify.fold_scale import FoldScale
from handmade import golden
from torch import nn


class Module(nn.Module):
    """What `body` does to x (batch, length, 8) with three products."""

    def __init__(self, body, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a, self.b, self.c = (nn.Linear(8, 8, bias=bias) for _ in range(3))
        self.number, self.row = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(8))
        self.matrix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return self.body(self, x)


def heads(x):
    return x.unflatten(-1, (2, 4)).transpose(1, 2)


def scores(m, x):
    """Attention with its scale on the scores, and one that is learned on the result."""
    weights = (heads(m.a(x)) @ heads(m.b(x)).transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    return m.number * (weights @ heads(m.c(x)))


def both(m, y):
    return torch.relu(m.a(y)) + torch.relu(m.b(y))


def folded(body, bias=True):
    module = Module(body, bias).eval()
    program = capture(module, inputs={"x": torch.randn(2, 3, 8)})
    return module, program, FoldScale().run(program.clone(), Context())


CASES = {
    "of attention's scores": (scores, 2),
    "of queries": (lambda m, x: heads(m.a(x) * 0.5) @ heads(m.b(x)).transpose(-1, -2), 1),
    "of logits": (lambda m, x: torch.tanh(m.a(x) / 3), 1),
    "before a product": (lambda m, x: m.a(torch.relu(x) * -0.25), 1),
    "before two products": (lambda m, x: both(m, torch.relu(x) / 4), 2),
    "of a plain matrix": (lambda m, x: torch.relu(3 * (x @ m.matrix)), 1),
    "twice": (lambda m, x: torch.relu(3 * (m.a(x) / 5)), 2),
    "between two products": (lambda m, x: m.b(m.a(x) * 1.5), 1),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_number_goes_into_the_product_beside_it(name, bias):
    body, count = CASES[name]
    module, program, done = folded(body, bias)
    assert done.statistics == {"numbers folded": done.statistics["numbers folded"],
                               "products that took them": count, "numbers left": 0}  # fmt: skip
    assert not {"mul", "div"} & {value.op for value in view(done.program)}
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(x.double()).numpy()
    found = execute(done.program, [{"x": x.numpy()}])[0][program.outputs[0]]
    np.testing.assert_allclose(found, expected, atol=3e-6, rtol=2e-6)
    assert not FoldScale().run(done.program.clone(), Context()).modified


def twice(m, h):
    return torch.relu(h * 2) + torch.tanh(h)


def squared(m, h):
    return torch.relu(h @ h.transpose(1, 2) * 2)


STAYS = {
    "another reader of the product": (lambda m, x: twice(m, m.a(x)), "tanh reads linear too"),
    "another reader of the scores": (lambda m, x: twice(m, m.a(x) @ m.b(x).mT), "tanh reads matmul too"),
    "a product with itself": (lambda m, x: squared(m, m.a(x)), "reads linear too"),
    "a weight of two layers": (lambda m, x: m.a(torch.relu(m.a(x) * 2)), "a_weight serves other layers too"),
    "a residual after it": (lambda m, x: (lambda y: y + m.a(y))(torch.relu(x) * 2), "needs its result"),
}


@pytest.mark.parametrize("name", STAYS)
def test_where_it_stays_it_says_why(name):
    body, reason = STAYS[name]
    _, program, done = folded(body)
    assert not done.modified
    assert done.program.fingerprint() == program.fingerprint()
    (note,) = done.notes
    assert re.search(reason, note), note


def test_a_product_with_itself_would_take_the_number_twice():
    module = Module(lambda m, x: (lambda h: torch.relu(h @ h * 2))(m.a(x)))
    program = capture(module.eval(), inputs={"x": torch.randn(2, 8, 8)})
    assert not FoldScale().run(program, Context()).modified


NONE = {
    "no number": lambda m, x: torch.relu(m.a(x) * x.mean()),
    "one a feature": lambda m, x: torch.relu(m.a(x) * m.row),
    "a product of activations": lambda m, x: m.a(x) * m.b(x),
    "no product near": lambda m, x: torch.relu(torch.tanh(x) * 2),
    "zero": lambda m, x: torch.relu(m.a(x) * 0),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_number_beside_a_product_is_left_without_a_word(name):
    _, program, done = folded(NONE[name])
    assert not done.modified
    assert done.notes == ()
    assert done.program.fingerprint() == program.fingerprint()


FOLDED = {"bert": 2, "roberta": 2, "mpnet": 2, "mobilebert": 2, "vit": 2, "albert": 0, "gpt2": 0, "t5": 0}


@pytest.mark.parametrize("name", FOLDED)
def test_architectures(name):
    """Scales of scores go into queries, but where all layers share one weight, or products of one matrix."""
    program = zoo.fx_program(name, "eager" if FOLDED[name] else "sdpa")
    run = Pipeline.parse("fold-scale").run(program, Context())
    assert run.ok
    assert run.steps[0].statistics["numbers folded"] == FOLDED[name]
    before, after = (recognise(view(each)) for each in (program, run.program))
    assert after.summary() == before.summary()
    if FOLDED[name]:
        assert [attention.scale for attention in after.attention] == [1.0, 1.0]


def test_attention_is_fused_after_it():
    run = Pipeline.parse("fold-scale,to-onnx,fuse-attention").run(zoo.fx_program("bert", "eager"), Context())
    assert run.ok
    assert [step.status for step in run.steps] == ["applied"] * 3


def test_golden():
    module = Module(lambda m, x: torch.relu(m.a(x) * 0.5) + m.b(torch.tanh(x) / 4))
    for number, parameter in enumerate(module.parameters()):
        parameter.data = (torch.arange(parameter.numel()) % 7 + number).reshape(parameter.shape) / 4
    program = capture(module.eval(), inputs={"x": torch.randn(2, 3, 8)})
    after = FoldScale().run(program.clone(), Context()).program
    golden("simplify/fold-scale", f"# before\n{text(program)}\n# after\n{text(after)}")

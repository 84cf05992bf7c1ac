"""replace-activation, against PyTorch's own functions."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.activation import activations
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.text import parse, print_pass
from graphwright.passes.simplify.replace_activation import NAMES, ReplaceActivation
from graphwright.tools.verbs.passes import entry
from handmade import golden
from torch import nn
from torch.nn import functional

PYTORCH = {
    "relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu, "tanh": torch.tanh,
    "tanh-gelu": lambda x: functional.gelu(x, approximate="tanh"), "sigmoid": torch.sigmoid,
    "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x), "relu2": lambda x: functional.relu(x) ** 2,
    "softplus": functional.softplus, "mish": functional.mish, "elu": functional.elu,
    "hard-swish": functional.hardswish, "leaky-relu": functional.leaky_relu,
}  # fmt: skip


class Layer(nn.Module):
    """A feed-forward, gated or not, on a stream (batch, length, 8); its own activation is `act`."""

    def __init__(self, act, gated=False):
        super().__init__()
        torch.manual_seed(0)
        self.act, self.gate = act, nn.Linear(8, 24) if gated else None
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        if self.gate is None:
            return x + self.down(self.act(self.up(x)))
        return x + self.down(self.act(self.gate(x)) * self.up(x))


def program(act, gated=False):
    return capture(Layer(act, gated).eval(), inputs={"x": torch.randn(2, 3, 8)})


def names(program):
    return [block.activation for block in recognise(view(program)).feed_forward]


def test_every_name_has_a_function_here():
    assert PYTORCH.keys() == NAMES.keys()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("to", sorted(NAMES))
def test_computes_as_the_module_with_the_other_function(to, gated):
    old = "relu" if to == "gelu" else "gelu"
    before = program(PYTORCH[old], gated)
    run = Pipeline.parse(f"replace-activation{{from={old},to={to}}},to-onnx").run(before, Context())
    assert run.ok
    assert names(run.program) == [NAMES[to]]
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1)) * 4
    with torch.no_grad():
        expected = Layer(PYTORCH[to], gated).eval().double()(x.double()).numpy()
    found = execute(run.program, [{"x": x.numpy()}])[0][before.outputs[0]]
    np.testing.assert_allclose(found, expected, atol=3e-6, rtol=2e-6)


HAVE = {
    "bert": "gelu", "roberta": "gelu", "albert": "tanh-gelu", "mpnet": "gelu", "mobilebert": "relu",
    "modernbert": "gelu", "t5": "relu", "gpt2": "tanh-gelu", "llama": "silu", "vit": "gelu",
}  # fmt: skip


@pytest.mark.parametrize("name", HAVE)
def test_architectures(name):
    before = zoo.fx_program(name)
    to = "quick-gelu" if HAVE[name] == "relu" else "relu"
    done = ReplaceActivation(from_=HAVE[name], to=to).run(before.clone(), Context())
    assert set(names(before)) == {NAMES[HAVE[name]]}
    assert names(done.program) == [NAMES[to]] * len(names(before))
    assert recognise(view(done.program)).summary() == recognise(view(before)).summary()


class Pooled(nn.Module):
    """A feed-forward, and a pooler whose tanh is in none."""

    def __init__(self):
        super().__init__()
        self.layer, self.pooler = Layer(torch.tanh), nn.Linear(8, 5)

    def forward(self, x):
        return torch.tanh(self.pooler(self.layer(x)[:, 0]))


@pytest.mark.parametrize(("where", "left"), [("feed-forward", ["tanh"]), ("everywhere", [])])
def test_poolers_are_replaced_where_asked(where, left):
    before = capture(Pooled().eval(), inputs={"x": torch.randn(2, 3, 8)})
    done = ReplaceActivation(from_="tanh", to="relu", where=where).run(before, Context())
    graph = view(done.program)
    linears = {linear.root: linear for linear in recognise(graph).linear}
    assert [each.name for each in activations(graph, linears) if each.name != "relu"] == left


def test_what_is_no_function_of_one_product_is_none():
    """Two products that meet, a value that another adds to, and the sigmoid inside of a SiLU."""

    class Near(Layer):
        def forward(self, x):
            h = self.up(x)
            return self.down(h * torch.sigmoid(h) + functional.gelu(self.gate(x))) + self.down(
                torch.tanh(h + 1)
            )

    graph = view(capture(Near(None, True).eval(), inputs={"x": torch.randn(2, 3, 8)}))
    linears = {linear.root: linear for linear in recognise(graph).linear}
    assert [each.name for each in activations(graph, linears)] == ["silu", "gelu"]


def test_a_model_without_it_says_what_it_has():
    before = zoo.fx_program("llama")
    with pytest.raises(PassError, match="has the activation gelu in a feed-forward: there 2 times silu"):
        ReplaceActivation().run(before.clone(), Context())
    bare = capture(nn.Linear(8, 8), inputs={"input": torch.randn(2, 8)})
    with pytest.raises(PassError, match="there is none"):
        ReplaceActivation().run(bare, Context())


def test_rewrites_that_are_not_allowed_leave_the_program():
    before = zoo.fx_program("bert")
    done = ReplaceActivation().run(before.clone(), Context(allow=lambda rewrite: rewrite.endswith("never")))
    assert not done.modified
    assert done.program.fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("from=gello", "from is 'gello', which is no activation; there are: elu, gelu, hard-swish"),
        ("to=swish", "to is 'swish', which is no activation"),
        ("to=gelu", "both gelu"),
        ("from_=gelu", "no option 'from_'; did you mean 'from'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline.parse(f"replace-activation{{{options}}}")


def test_the_option_from_is_written_as_it_is_read():
    text_ = "replace-activation{from=relu,to=quick-gelu}"
    assert [print_pass(each) for each in parse(text_)] == [text_]


def test_the_option_from_is_listed_as_it_is_written():
    assert "from: str = 'gelu'" in entry("replace-activation").options


def test_golden():
    before = program(functional.gelu)
    for number, parameter in enumerate(before.graph.parameters()):
        parameter.data = torch.arange(parameter.numel()).reshape(parameter.shape) / 4 + number
    after = ReplaceActivation(to="quick-gelu").run(before.clone(), Context()).program
    golden("simplify/replace-activation", f"# before\n{text(before)}\n# after\n{text(after)}")

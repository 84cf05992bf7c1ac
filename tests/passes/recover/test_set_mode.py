"""set-mode: the traced graph drops what the module drops in training, and nothing in evaluation."""

import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.fx.mode import modal, rate
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context, Exact, Result
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.set_mode import SetMode
from torch import nn
from torch.nn import functional as F  # noqa: N812

TOLERANCE = 1e-5


class Mixed(nn.Module):
    """Every kind of node with a mode, in one layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.dropout = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, x):
        y = self.dropout(self.norm(self.linear(x)))[:, None, None]
        y = F.scaled_dot_product_attention(y, y, y, dropout_p=0.25 if self.training else 0.0)
        return F.dropout(y, 0.125 if self.training else 0.0, self.training)


T5 = pytest.param("t5", "eager", marks=pytest.mark.slow)  # made functional, by which dropouts would go


def switched(program, training):
    return SetMode(training=training).run(program.clone(), Context())


@pytest.fixture(scope="module")
def mixed():
    return capture(Mixed(), inputs=(torch.randn(6, 8),))


@pytest.mark.parametrize(
    ("name", "attn"),
    [("bert", "sdpa"), ("bert", "eager"), ("gpt2", "sdpa"), ("bart", "sdpa"), T5],
)
def test_a_graph_in_training_is_the_module_in_training(name, attn):
    case, program = zoo.ARCHITECTURES[name], zoo.fx_program(name, attn)
    trained, module, tensors = switched(program, True).program, case.build(attn).train(), case.inputs(4, 9)
    torch.manual_seed(5)
    expected = module(**tensors)[0]
    torch.manual_seed(5)
    found = trained.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    with torch.no_grad():
        still = module.eval()(**tensors)[0]
    assert (found - still).abs().max() > 0.01  # something was dropped
    again = trained.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    assert (found - again).abs().max() > 0.01


def test_rates_are_recorded_at_capture_and_survive_the_round_trip(mixed):
    assert [rate(node) for node, _ in modal(mixed.graph)] == [None, 0.5, 0.25, 0.125]
    before = mixed.fingerprint()
    trained = switched(mixed, True)
    assert trained.modified
    assert trained.statistics == {"nodes switched": 4, "nodes with a mode": 4}
    assert mixed.fingerprint() == before
    assert trained.program.fingerprint() != before
    assert not switched(trained.program, True).modified
    back = switched(trained.program.clone(), False)
    assert back.program.fingerprint() == before
    assert [rate(node) for node, _ in modal(back.program.clone().graph)] == [None, 0.5, 0.25, 0.125]


def test_a_batch_norm_takes_the_batchs_statistics_and_moves_its_own(mixed):
    trained = switched(mixed, True).program
    module = Mixed().train()
    graph = trained.with_graph(trained.graph).graph
    mean = dict(graph.named_buffers())["norm.running_mean"]
    kept = mean.clone()
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(1)
    expected = module(x)
    torch.manual_seed(1)
    torch.testing.assert_close(graph(x)[0], expected)
    torch.testing.assert_close(mean, module.norm.running_mean)
    assert (mean - kept).abs().max() > 0.01
    mean.copy_(kept)


def test_capturing_leaves_the_module_and_the_generator_alone():
    module = Mixed()
    module.dropout.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.get_rng_state()
    capture(module, inputs=(torch.ones(6, 8),))
    assert torch.equal(torch.get_rng_state(), state)
    assert (module.training, module.dropout.training, module.norm.training) == (True, False, True)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Unruly(nn.Module):
    """Drops in training what it does not have in evaluation."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        if self.training:
            x = F.dropout(x, 0.3)
        q = self.linear(x)[:, None, None]
        return F.scaled_dot_product_attention(q, q, q)


def test_calls_that_do_not_match_the_trace_record_nothing_and_are_told():
    program = capture(Unruly(), inputs=(torch.randn(3, 4),))
    result = switched(program, True)
    assert not result.modified
    assert result.notes == ("1 of 1 nodes with a mode drop nothing: their rate is 0",)


def test_nothing_with_a_mode_is_told():
    program = zoo.fx_program("nanogpt", "eager")
    result = switched(program, True)
    assert not result.modified
    assert result.notes == ("nothing in the graph depends on the mode",)


def test_verification_compares_training_programs_in_evaluation():
    program = zoo.fx_program("bert")
    text = "set-mode,eliminate-common-subexpressions,eliminate-dead-code,set-mode{training=false}"
    run = Pipeline.parse(text).run(program)
    without = Pipeline.parse(text.replace("set-mode,", "")).run(program)
    assert run.ok, run.steps[-1].error
    assert [step.status for step in run.steps][::3] == ["applied", "applied"]
    assert run.program.fingerprint() == without.program.fingerprint()


def test_a_break_is_found_in_a_training_program():
    trained = switched(zoo.fx_program("bert"), True).program

    class Breaks(SetMode):
        def run(self, program, context):
            output = program.graph.graph.output_node()
            result = output.args[0][0]
            with program.graph.graph.inserting_before(output):
                doubled = program.graph.graph.call_function(torch.ops.aten.mul.Tensor, (result, 2))
            doubled.meta["val"] = result.meta["val"]
            output.args = ((doubled,),)
            program.graph.recompile()
            return Result(program, True)

    Breaks.effect = Exact(1e-4)
    run = Pipeline([Breaks()]).run(trained)
    assert "moved by" in str(run.steps[0].error)


def test_lowering_gives_the_graph_in_evaluation():
    program = zoo.fx_program("distilbert")
    run = Pipeline.parse("set-mode,to-onnx").run(program)
    assert run.ok, run.steps[-1].error
    feeds = probes(program, 2)
    for expected, found in zip(execute(program, feeds), execute(run.program, feeds), strict=True):
        for name in program.outputs:
            torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4)


def test_parameters_get_gradients_in_training(mixed):
    trained = switched(mixed, True).program
    graph = trained.graph
    torch.manual_seed(0)
    graph(torch.randn(32, 8))[0].square().mean().backward()
    for name, parameter in graph.named_parameters():
        assert parameter.grad is not None, name
        parameter.grad = None

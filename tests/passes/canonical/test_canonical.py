"""Canonical passes on FX graphs: what goes, what stays, and that parameters stay trainable."""

import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.text import text
from graphwright.passes.manager.pipeline import Pipeline
from handmade import golden

aten = torch.ops.aten


class Redundant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(4, 4)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        a = self.proj(x).clone()
        b = self.proj(x)
        c = self.dropout(a * 2 + b.view(b.shape))
        return torch.relu(c.to(torch.float32))


class Twice(torch.nn.Module):
    def forward(self, x):
        a = x + 1
        b = x + 1
        return a, b


@pytest.fixture(scope="module")
def redundant():
    torch.manual_seed(0)
    return capture(Redundant().eval(), inputs=(torch.randn(2, 3, 4),))


def after(pipeline, program, status="applied"):
    run = Pipeline.parse(pipeline).run(program)
    assert run.ok, run.steps[0].error
    assert run.steps[-1].status == status
    return run.program


def calls(program):
    return [node.target for node in program.graph.graph.nodes if node.op == "call_function"]


PIPELINE = "eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"


def test_golden(redundant):
    before = redundant.fingerprint()
    found = after("eliminate-identities,eliminate-common-subexpressions", redundant)
    golden("canonical/eliminate-identities-fx", f"# before\n{text(redundant)}# after\n{text(found)}")
    assert redundant.fingerprint() == before


def test_equal_calls_become_one(redundant):
    found = after("eliminate-common-subexpressions", redundant)
    assert calls(redundant).count(aten.linear.default) == 2
    assert calls(found).count(aten.linear.default) == 1


def test_dropout_outside_training_goes(redundant):
    assert aten.dropout.default in calls(redundant)
    assert aten.dropout.default not in calls(after("eliminate-identities", redundant))


def test_training_dropout_stays_and_is_not_merged(redundant):
    program = redundant.clone()
    dropout = next(node for node in program.graph.graph.nodes if node.target is aten.dropout.default)
    with program.graph.graph.inserting_after(dropout):
        twin = program.graph.graph.create_node("call_function", dropout.target, dropout.args)
    with program.graph.graph.inserting_after(twin):
        total = program.graph.graph.call_function(aten.add.Tensor, (dropout, twin))
    dropout.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
    for node in (dropout, twin):
        node.args = (*node.args[:2], True)
    program.graph.recompile()
    for text_ in PIPELINE.split(","):
        run = Pipeline.parse(text_).run(program, verify=False)
        assert run.ok
        assert calls(run.program).count(aten.dropout.default) == 2


def test_copies_stay_where_something_writes_in_place():
    program = capture(Twice(), inputs=(torch.randn(2, 4),)).clone()
    first = next(node for node in program.graph.graph.nodes if node.op == "call_function")
    with program.graph.graph.inserting_after(first):
        written = program.graph.graph.call_function(aten.add_.Tensor, (first, 5))
    first.replace_all_uses_with(written, delete_user_cb=lambda user: user is not written)
    program.graph.recompile()
    run = Pipeline.parse("eliminate-common-subexpressions").run(program)
    assert run.ok
    assert run.steps[0].status == "no change"
    assert "writes in place" in run.steps[0].notes[0]


def test_dead_calls_and_parameters_go(redundant):
    program = redundant.clone()
    program.graph.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    graph = program.graph.graph
    with graph.inserting_before(graph.output_node()):
        graph.call_function(aten.neg.default, (graph.get_attr("unused"),))
        graph.call_function(aten.dropout.default, (graph.call_function(aten.ones.default, ([2],)), 0.5, True))
    program.graph.recompile()
    found = after("eliminate-dead-code", program)
    assert aten.neg.default not in calls(found)
    assert [name for name, _ in found.clone().graph.named_parameters()] == ["proj.weight", "proj.bias"]


def test_parameters_get_gradients_afterwards(redundant):
    found = Pipeline.parse(PIPELINE).run(redundant).program
    outputs = found.graph(torch.randn(2, 3, 4))
    outputs[0].sum().backward()
    weight = found.graph.get_parameter("proj.weight")
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    weight.grad = None


def test_outputs_keep_their_order():
    program = capture(Twice(), inputs=(torch.randn(2, 4),))
    found = after("eliminate-common-subexpressions", program)
    one, two = found.graph(torch.ones(2, 4))
    torch.testing.assert_close(one, two)

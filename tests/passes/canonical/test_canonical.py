"""Every canonical pass: texts before and after, twice is once, any part of the work is valid."""

import pytest
import torch
from canonical import GOLDEN, PIPELINE, after, calls
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import before_and_after, golden

aten = torch.ops.aten


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text):
    program = GOLDEN[text]
    before = program.fingerprint()
    found = after(text, program)
    golden(f"canonical/{text.partition('{')[0]}", before_and_after(program, found))
    assert program.fingerprint() == before


# The symbols that specialise-shapes fixes are gone the second time.
@pytest.mark.parametrize("text", [text for text in GOLDEN if "specialise" not in text])
def test_twice_is_once(text):
    after(text, after(text, GOLDEN[text]), status="no change")


@pytest.mark.parametrize("text", [text for text in GOLDEN if "specialise" not in text])
def test_any_number_of_rewrites_leaves_a_valid_program(text):
    """What bisection relies on."""
    total = 0

    def limited(limit):
        def allow(rewrite):
            nonlocal total
            total += 1
            return total <= limit

        return allow

    for limit in range(20):
        total = 0
        run = Pipeline.parse(text).run(GOLDEN[text], Context(allow=limited(limit)))
        assert run.ok, (limit, run.steps[0].error)


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


def test_parameters_get_gradients_afterwards(redundant):
    found = Pipeline.parse(PIPELINE).run(redundant).program
    outputs = found.graph(torch.randn(2, 3, 4))
    outputs[0].sum().backward()
    weight = found.graph.get_parameter("proj.weight")
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    weight.grad = None

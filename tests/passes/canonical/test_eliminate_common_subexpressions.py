"""eliminate-common-subexpressions: equal calls and weights become one, and what only looks equal stays."""

import numpy as np
import pytest
import torch
from canonical import F32, X3, Y3, Twice, after, calls
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from handmade import operators, parsed

aten = torch.ops.aten


def test_equal_calls_become_one(redundant):
    found = after("eliminate-common-subexpressions", redundant)
    assert calls(redundant).count(aten.linear.default) == 2
    assert calls(found).count(aten.linear.default) == 1


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


def test_outputs_keep_their_order():
    program = capture(Twice(), inputs=(torch.randn(2, 4),))
    found = after("eliminate-common-subexpressions", program)
    one, two = found.graph(torch.ones(2, 4))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    "body",
    [
        "a = Softmax<axis = -1>(x)\nb = Softmax<axis = 1>(x)\ny = Sub(a, b)",
        "a = Sub(x, k)\nb = Sub(k, x)\ny = Mul(a, b)",
        "a = RandomNormalLike(x)\nb = RandomNormalLike(x)\nc = Mul(a, b)\nd = Sub(c, c)\ny = Add(x, d)",
    ],
)
def test_what_is_not_merged(body):
    program = parsed(body, X3, Y3, {"k": np.ones(4, F32)})
    after("eliminate-common-subexpressions", program, status="no change")


def test_merged_outputs_keep_their_names():
    program = parsed("y = Relu(x)\nz = Relu(x)", X3, f"{Y3}, float[batch,length,4] z")
    program = after("eliminate-common-subexpressions", program)
    assert operators(program) == ["Relu", "Identity"]
    assert [value.name for value in program.graph.graph.outputs] == ["y", "z"]


def test_equal_weights_of_another_type_stay_apart():
    weights = {
        "a": np.zeros(4, F32),
        "b": np.zeros(4, np.int32),
        "c": np.zeros((1, 4), F32),
        "d": -np.zeros(4, F32),
    }
    body = "p = Cast<to = 1>(b)\nq = Add(x, a)\nr = Add(q, p)\ns = Add(r, c)\ny = Add(s, d)"
    program = after("eliminate-common-subexpressions", parsed(body, X3, Y3, weights), status="no change")
    assert set(program.graph.graph.initializers) == set(weights)


def test_weights_that_agree_in_the_sample_only():
    first = np.zeros(100_000, F32)
    second = first.copy()
    second[1] = 1.0
    program = parsed(
        "a = Add(x, first)\ny = Add(a, second)",
        "float[batch,100000] x",
        "float[batch,100000] y",
        {"first": first, "second": second},
    )
    after("eliminate-common-subexpressions", program, status="no change")

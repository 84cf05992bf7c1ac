"""Stacks of matrices whose every use takes one by its number become a weight each."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.lower.parts.grouped import store_apart
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import operators, parsed

STACK = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
FEED = {"x": np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)}


def program(body):
    numbers = {"one": np.array(1), "two": np.array(2)}
    return parsed(body, "float[batch,5] x", "float[batch,c] y", {"stack": STACK, **numbers})


@pytest.mark.parametrize(
    ("body", "held"),
    [
        (
            "turned = Transpose <perm = [0, 2, 1]> (stack) a = Gather (turned, one) b = Gather (turned, two) "
            "p = MatMul (x, a) q = MatMul (x, b) y = Add (p, q)",
            {"stack.1": (5, 4), "stack.2": (5, 4)},
        ),
        ("a = Gather (stack, two) y = Gemm <transB = 1> (x, a)", {"stack.2": (4, 5)}),
    ],
)
def test_each_matrix_is_a_weight_of_its_own(body, held):
    apart = program(body)
    wanted = execute(apart, [FEED])[0]["y"]
    assert store_apart(apart.graph) == 1
    shapes = {name: tuple(v.shape) for name, v in apart.graph.graph.initializers.items() if v.uses()}
    assert shapes == held
    np.testing.assert_array_equal(execute(apart, [FEED])[0]["y"], wanted)


@pytest.mark.parametrize(
    "body",
    [
        "a = Gather (stack, one) s = ReduceSum <keepdims = 0> (stack) p = Gemm <transB = 1> (x, a) "
        "y = Add (p, s)",
        "n = Shape (x) b = Gather (n, one) c = Min (b, two) a = Gather (stack, c) "
        "y = Gemm <transB = 1> (x, a)",
        "a = Gather <axis = 1> (stack, one) t = Transpose (a) y = MatMul (x, a)",
    ],
)
def test_a_stack_that_is_read_in_another_way_stays_whole(body):
    whole = program(body)
    before = operators(whole)
    assert store_apart(whole.graph) == 0
    assert operators(whole) == before
    assert "stack" in whole.graph.graph.initializers


def test_a_weight_that_no_row_enters_is_rounded_by_itself():
    """As that of an expert that no token was given to."""
    random = np.random.default_rng(0)
    constants = {
        "none": np.array([0]), "all": np.array([2**31]),
        "left": random.standard_normal((32, 16)).astype(np.float32),
        "right": random.standard_normal((32, 16)).astype(np.float32),
    }  # fmt: skip
    program = parsed(
        "a = Slice (x, none, none, none) b = Slice (x, none, all, none) p = MatMul (a, left) "
        "q = MatMul (b, right) y = Concat <axis = 0> (p, q)",
        "float[batch,32] x",
        "float[batch,16] y",
        constants,
    )
    feeds = [{"x": random.standard_normal((8, 32)).astype(np.float32)} for _ in range(4)]
    run = Pipeline.parse("quantize-weights{bits=8,method=gptq}").run(program, Context(calibration=feeds))
    assert run.ok, run.steps[0].error
    assert run.steps[0].statistics["weights packed"] == 2
    before, after = (execute(each, feeds[:1])[0]["y"] for each in (program, run.program))
    assert np.abs(before - after).max() < 0.1

"""Stacks of matrices whose every use takes one by its number become a weight each."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.lower.parts.grouped import store_apart
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

"""eliminate-identities: what gives its input goes, near misses and the names of outputs stay."""

import numpy as np
import pytest
import torch
from canonical import F32, X3, Y3, after, calls
from graphwright.ir.text import text
from handmade import golden, operators, parsed

aten = torch.ops.aten


def test_golden(redundant):
    before = redundant.fingerprint()
    found = after("eliminate-identities,eliminate-common-subexpressions", redundant)
    golden("canonical/eliminate-identities-fx", f"# before\n{text(redundant)}# after\n{text(found)}")
    assert redundant.fingerprint() == before


def test_dropout_outside_training_goes(redundant):
    assert aten.dropout.default in calls(redundant)
    assert aten.dropout.default not in calls(after("eliminate-identities", redundant))


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Add(x, c)", {"c": np.array([0, 0, 0, 1], F32)}),
        ("y = Sub(c, x)", {"c": np.zeros(4, F32)}),
        ("y = Div(c, x)", {"c": np.ones(4, F32)}),
        ("a = Cast<to = 10>(x)\ny = Cast<to = 1>(a)", {}),  # through float16: rounds
        ("a = Cast<to = 7>(x)\ny = Cast<to = 1>(a)", {}),  # through int64: truncates
        ("a = Transpose<perm = [0, 2, 1]>(x)\nb = Relu(a)\ny = Transpose<perm = [0, 2, 1]>(b)", {}),
        ("y, mask = Dropout(x, half, yes)", {"half": np.array(0.0, F32), "yes": np.array(True)}),
        ("a = Softmax(x)\nb = IsNaN(a)\ny = Where(b, zero, a)", {"zero": np.zeros((), F32)}),
    ],
)
def test_near_identities(body, weights):
    after("eliminate-identities", parsed(body, X3, Y3, weights), status="no change")


def test_adding_zero_that_enlarges_is_no_identity():
    program = parsed("y = Add(x, c)", "float[batch,1] x", "float[batch,4] y", {"c": np.zeros(4, F32)})
    after("eliminate-identities", program, status="no change")


def test_reshape_that_moves_is_no_identity():
    program = parsed("y = Reshape(x, c)", X3, "float[length,batch,4] y", {"c": np.array([-1, 1, 4])})
    after("eliminate-identities", program, status="no change")


def test_an_input_cannot_take_an_outputs_name():
    program = parsed("y = Identity(x)\nz = Relu(x)", X3, f"{Y3}, float[batch,length,4] z")
    after("eliminate-identities", program, status="no change")


def test_two_outputs_of_one_value():
    program = parsed("a = Relu(x)\ny = Identity(a)\nz = Identity(a)", X3, f"{Y3}, float[batch,length,4] z")
    program = after("eliminate-identities", program)
    assert operators(program) == ["Relu", "Identity"]
    assert [value.name for value in program.graph.graph.outputs] == ["y", "z"]


def test_transposes_and_reshapes_in_a_row_become_one():
    program = parsed(
        """
        a = Transpose<perm = [1, 0, 2]>(x)
        b = Transpose<perm = [0, 2, 1]>(a)
        c = Reshape(b, flat)
        y = Reshape(c, wide)
        """,
        X3,
        "float[rows,2] y",
        {"flat": np.array([-1]), "wide": np.array([-1, 2])},
    )
    program = after("eliminate-identities,eliminate-dead-code", program)
    assert operators(program) == ["Transpose", "Reshape"]
    assert program.graph.graph[0].attributes["perm"].as_ints() == (1, 2, 0)


def test_a_reshape_that_copies_sizes_needs_the_one_before_it():
    program = parsed(
        "a = Reshape(x, pairs)\ny = Reshape(a, copy)",
        "float[batch,4] x",
        "float[batch,2,2] y",
        {"pairs": np.array([-1, 2]), "copy": np.array([-1, 0, 2])},
    )
    assert operators(after("eliminate-identities", program, status="no change")) == ["Reshape", "Reshape"]

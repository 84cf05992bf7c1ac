"""Padding is tried before it is relied on."""

from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.tvm.build.padding import padding_of
from graphwright.ir.capture import capture
from handmade import parsed
from zoo import ARCHITECTURES

IDS = "int64[batch,length] ids"
TABLE = {"table": np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)}
AXIS = {"axis": np.array([1], np.int64)}


def program(body, outputs, inputs=IDS, **weights):
    return parsed(body, inputs, outputs, {**TABLE, **weights})


def test_an_attention_mask_that_is_used_allows_both(make):
    found = padding_of(make.encoder())
    assert (found.batch, found.length, found.axes) == ("batch", "length", (("batch", None),))


def test_tokens_that_know_nothing_of_each_other_can_be_padded():
    found = padding_of(program("y = Gather (table, ids)", "float[batch,length,6] y"))
    assert (found.batch, found.length, found.axes) == ("batch", "length", (("batch", "length", None),))


def test_a_mean_over_all_tokens_cannot_be_padded_in_length_even_where_there_is_a_mask():
    body = "x = Gather (table, ids) y = ReduceMean <keepdims=0> (x, axis)"
    found = padding_of(program(body, "float[batch,6] y", **AXIS))
    assert (found.batch, found.length, found.axes) == ("batch", None, (("batch", None),))
    unused = "float[batch,6] y, int64[batch,length] m"
    masked = program(f"{body} m = Identity (mask)", unused, f"{IDS}, int64[batch,length] mask", **AXIS)
    assert padding_of(masked).length is None


def test_rows_that_see_each_other_cannot_be_padded():
    body = "x = Gather (table, ids) a = ReduceMean <keepdims=1> (x, zero) y = Sub (x, a)"
    found = padding_of(program(body, "float[batch,length,6] y", zero=np.array([0], np.int64)))
    assert (found.batch, found.length) == (None, "length")


def test_an_output_without_rows_keeps_the_batch_as_it_is():
    body = "x = Gather (table, ids) y = ReduceMax <keepdims=0> (x)"
    found = padding_of(program(body, "float y"))
    assert found.batch is None


def test_a_second_length_keeps_both_as_they_are():
    body = "x = Gather (table, ids) s = ReduceSum (other, axis) l = Unsqueeze (s, axis) y = Add (x, l)"
    inputs = f"{IDS}, float[batch,past] other"
    found = padding_of(program(body, "float[batch,length,6] y", inputs, **AXIS))
    assert (found.batch, found.length) == ("batch", None)
    assert found.axes == (("batch", None, None),)


def test_fixed_sizes_stay():
    found = padding_of(program("y = Gather (table, ids)", "float[2,3,6] y", "int64[2,3] ids"))
    assert (found.batch, found.length, found.axes) == (None, None, ((None, None, None),))
    bounded = program("y = Gather (table, ids)", "float[batch,length,6] y")
    assert padding_of(replace(bounded, symbols={"batch": (1, 64), "length": (7, 7)})).length is None


@pytest.mark.parametrize("token", [None, 3, 8])
def test_the_padding_token_is_the_models_where_its_table_has_it(make, token):
    program = replace(make.encoder(), info={"pad_token_id": token})
    assert padding_of(
        replace(program, inputs=(replace(program.inputs[0], high=8), program.inputs[1]))
    ).token == (3 if token == 3 else 0)


@pytest.mark.parametrize(("name", "length"), [("bert", "length"), ("gpt2", "length")])
def test_architectures_of_the_zoo(name, length):
    case = ARCHITECTURES[name]
    found = padding_of(capture(case.build(), inputs=case.inputs()))
    assert (found.batch, found.length) == ("batch", length)


@pytest.mark.parametrize("body", ["y = Sub (x, x)", "z = Sub (x, x) y = Div (z, z)"])
def test_outputs_that_say_nothing_allow_no_padding(body):
    found = padding_of(program(f"x = Gather (table, ids) {body}", "float[batch,length,6] y"))
    assert (found.batch, found.length) == (None, None)


def test_scores_that_are_masked_by_infinity_agree_with_themselves():
    body = "x = Gather (table, ids) low = Greater (x, zero) y = Where (low, x, inf)"
    infinite = {"zero": np.float32(0), "inf": np.float32(-np.inf)}
    found = padding_of(program(body, "float[batch,length,6] y", **infinite))
    assert (found.batch, found.length) == ("batch", "length")


def test_an_integer_that_moves_by_one_in_thousands_forbids_padding():
    body = "n = ReduceMax <keepdims=0> (ids, axis) s = Shape <start=1> (ids) a = Mul (n, big) y = Add (a, s)"
    weights = {**AXIS, "big": np.array(10**6, np.int64)}
    found = padding_of(program(body, "int64[batch] y", **weights))
    assert (found.batch, found.length) == ("batch", None)

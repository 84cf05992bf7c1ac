"""`optimize verify A B`: what is not the same differs both ways round; what says nothing is not verified."""

import numpy as np
import onnx
import onnx_ir
import pytest
from graphwright.tools.verbs.verify import verify
from handmade import parsed

RIGHT = "y = Exp(x)"
INPUTS = "float[batch,4] x"
WEIGHTS = {"nan": np.float32(np.nan), "inf": np.float32(np.inf), "zero": np.float32(0), "one": np.int64(1)}


@pytest.fixture
def write(tmp_path):
    def _write(name, body, outputs="float[batch,4] y"):
        used = {key: value for key, value in WEIGHTS.items() if key in body}
        program = parsed(body, INPUTS, outputs, used)
        onnx.save(onnx_ir.to_proto(program.graph), tmp_path / f"{name}.onnx")
        return str(tmp_path / f"{name}.onnx")

    return _write


NOTHING = "z = Add(x, x) d = Sub(z, z) q = Div(d, d) y = Add(q, d)"  # 0 / 0: NaN whatever x is


def test_a_right_model_and_one_that_is_nan_everywhere_differ_both_ways_round(write):
    a, b = write("a", RIGHT), write("b", NOTHING)
    for first, second, words in ((a, b, "NaN where there was none"), (b, a, "where there was NaN")):
        found = verify(first, second)
        assert (found.same, found.status) == (False, 1)
        assert "they differ: B has" in found.sentence
        assert words in found.sentence


@pytest.mark.parametrize(
    ("body", "kind"),
    [(NOTHING, "NaN"), ("d = Sub(x, x) y = Exp(d)", "constant")],
)
def test_two_models_that_compute_nothing_are_not_verified(write, body, kind):
    found = verify(write("a", body), write("b", body))
    assert (found.same, found.status) == (False, 3)
    assert found.sentence == f"not verified: 'y' is {kind} on every probe input, so nothing was verified"


def test_infinities_of_two_signs_differ(write):
    up = "m = Greater(x, zero) big = Log(zero2) y = Where(m, x, big)".replace("zero2", "zero")
    down = "m = Greater(x, zero) big = Log(zero) low = Neg(big) y = Where(m, x, low)"
    found = verify(write("a", up), write("b", down))
    assert found.status == 1
    assert "infinities" in found.sentence
    assert verify(write("a", up), write("c", up)).sentence.startswith("they agree: at most 0 apart")


def test_integers_are_the_same_or_they_differ(write):
    body = "big = Mul(x, x) n = Cast<to = 7>(big) k = Constant<value_int = 9007199254740992>() y = Add(n, k)"
    more = body.replace("y = Add(n, k)", "m = Add(n, k) y = Add(m, one)")
    outputs = "int64[batch,4] y"
    found = verify(write("a", body, outputs), write("b", more, outputs), tolerance=0.5)
    assert found.status == 1
    assert "not the same" in found.sentence


def test_an_output_that_only_one_gives_is_said(write):
    both = write("a", RIGHT + " z = Neg(x)", "float[batch,4] y, float[batch,4] z")
    found = verify(both, write("b", RIGHT))
    assert found.status == 0
    assert found.sentence.endswith("; only one of them gives 'z', which was not compared")

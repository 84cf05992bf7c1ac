"""Patterns: what matches, what nearly does, and what the nearest miss says."""

import onnx_ir as ir
import pytest
from graphwright.ir.onnx.graph import OnnxView
from graphwright.ir.pattern import any_of, commutative, const, find, op, optional, through, var
from onnx import parser


def graph(body: str, inputs: str = "float[2,8] x, float[2,8] z") -> OnnxView:
    text = f'<ir_version: 8, opset_import: ["" : 18]> main ({inputs}) => (float[] y) {{ {body} }}'
    return OnnxView(ir.from_proto(parser.parse_model(text)))


def root(body: str):
    return graph(body).outputs[0]


# GELU by the error function: x * 0.5 * (1 + erf(x / sqrt(2))).
GELU = commutative(
    "mul",
    commutative("mul", var("x"), const(value=0.5)),
    commutative("add", op("erf", op("div", var("x"), const("root", value=2**0.5))), const(value=1.0)),
)
NUMBERS = """half = Constant<value_float=0.5>() one = Constant<value_float=1.0>()
    root = Constant<value_float=1.41421356>() two = Constant<value_float=2.0>()"""


@pytest.mark.parametrize(
    "body",
    [
        "h = Mul(x, half) d = Div(x, root) e = Erf(d) a = Add(e, one) y = Mul(h, a)",
        "d = Div(x, root) e = Erf(d) a = Add(one, e) h = Mul(half, x) y = Mul(a, h)",
    ],
)
def test_commutative_operators_match_in_any_order(body):
    match = find(GELU, root(f"{NUMBERS} {body}"))
    assert match
    assert (match["x"].name, match["root"].name, match.root.name) == ("x", "root", "y")
    assert {v.name for v in match.body} == {"h", "d", "e", "a", "y"}


@pytest.mark.parametrize(
    ("body", "node", "reason"),
    [
        (
            "h = Mul(x, half) d = Div(x, two) e = Erf(d) a = Add(e, one) y = Mul(h, a)",
            "two",
            "expected the constant 1.41421",
        ),
        (
            "h = Mul(x, half) d = Div(z, root) e = Erf(d) a = Add(e, one) y = Mul(h, a)",
            "z",
            "'x' is x elsewhere",
        ),
        ("h = Mul(x, half) e = Erf(x) a = Add(e, one) y = Mul(h, a)", "x", "expected div, found input"),
        ("h = Mul(x, half) d = Div(x, root) e = Tanh(d) a = Add(e, one) y = Mul(h, a)", "e", "found tanh"),
        (
            "h = Mul(x, half) d = Div(x, z) e = Erf(d) a = Add(e, one) y = Mul(h, a)",
            "d",
            "expected a constant",
        ),
        ("y = Relu(x)", "y", "expected mul, found relu"),
    ],
)
def test_the_nearest_miss_names_the_node_and_the_reason(body, node, reason):
    miss = find(GELU, root(f"{NUMBERS} {body}"))
    assert not miss
    assert miss.node == node
    assert reason in miss.reason


def test_alternatives_are_tagged_and_backed_out_of():
    # The first alternative captures and then fails; nothing of it may stay.
    pattern = op(
        "add",
        any_of("side", both=op("mul", var("a"), var("a")), each=op("mul", var("a"), var("b"))),
        var("c"),
    )
    match = find(pattern, root("m = Mul(x, z) y = Add(m, x)"))
    assert (match.tags, match["a"].name, match["b"].name) == ({"side": "each"}, "x", "z")
    assert find(pattern, root("m = Mul(x, x) y = Add(m, x)")).tags == {"side": "both"}


def test_an_earlier_choice_is_revisited_when_a_later_operand_fails():
    # Taking the first operand for "p" leaves the second pattern unmatched; only the swap fits.
    pattern = commutative("add", var("p"), op("mul", var("p"), const()))
    match = find(pattern, root("two = Constant<value_float=2.0>() m = Mul(x, two) y = Add(m, x)"))
    assert match["p"].name == "x"


def test_optional_operands_and_attributes():
    norm = op("layer_norm", var("x"), const("weight"), optional(const("bias")), axis=1)
    weights = "w = Constant<value_floats=[1,1,1,1,1,1,1,1]>()"
    assert find(norm, root(f"{weights} y = LayerNormalization(x, w)")).get("bias") is None
    assert find(norm, root(f"{weights} y = LayerNormalization(x, w, w)"))["bias"].name == "w"
    assert (
        "axis is 0, expected 1" in find(norm, root(f"{weights} y = LayerNormalization<axis=0>(x, w)")).reason
    )
    assert "expected a constant" in find(norm, root(f"{weights} y = LayerNormalization(x, w, z)")).reason
    assert "has 2 operands, expected 1" in find(op("add", var("x")), root("y = Add(x, z)")).reason


def test_what_stands_between_can_be_looked_through():
    pattern = op("relu", through("identity|cast", op("add", var("a"), var("b"))))
    match = find(pattern, root("s = Add(x, z) i = Identity(s) c = Cast<to=11>(i) y = Relu(c)"))
    assert [v.name for v in match.body] == ["y", "c", "i", "s"]
    assert find(pattern, root("s = Add(x, z) y = Relu(s)"))
    miss = find(pattern, root("s = Mul(x, z) i = Identity(s) y = Relu(i)"))
    assert (miss.node, miss.reason) == ("s", "expected add, found mul")


def test_values_that_something_outside_uses_are_told():
    view = graph("s = Add(x, z) r = Relu(s) y = Mul(r, s)")
    relu = view.outputs[0].inputs[0]
    match = find(op("relu", op("add", var("a"), var("b"))), relu)
    assert [v.name for v in match.escaping()] == ["s"]
    whole = find(op("mul", op("relu", var("s")), var("s")), view.outputs[0])
    assert whole.escaping(view.outputs) == ()
    assert [v.name for v in whole.escaping([relu])] == ["r"]

"""The ONNX adapter: every opset's and exporter's spelling says the same; the editor keeps the graph whole."""

import io

import interpreter
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import zoo
from graphwright.ir.onnx.graph import Editor, OnnxView
from graphwright.ir.values import END
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import checker, parser


def model(
    body: str, opset: int = 18, signature: str = "(float[batch,length,32] x) => (float[] y)"
) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> main {signature} {{ {body} }}'
    return ir.from_proto(parser.parse_model(text))


def last(body: str, **options):
    return OnnxView(model(body, **options)).outputs[0]


@pytest.mark.parametrize(
    ("old", "opset", "new"),
    [
        (
            "y = ReduceMean<axes=[-1], keepdims=1>(x)",
            13,
            "a = Constant<value_ints=[-1]>() y = ReduceMean(x, a)",
        ),
        ("y = Unsqueeze<axes=[-1]>(x)", 11, "a = Constant<value_ints=[3]>() y = Unsqueeze(x, a)"),
        ("y = ReduceSum<axes=[1]>(x)", 11, "a = Constant<value_ints=[1]>() y = ReduceSum(x, a)"),
        (
            "a, y = Split<axis=-1, split=[8, 24]>(x)",
            11,
            "s = Constant<value_ints=[8, 24]>() a, y = Split<axis=2>(x, s)",
        ),
        ("a, y = Split<axis=2>(x)", 13, "a, y = Split<axis=2, num_outputs=2>(x)"),
        (
            "y = Slice<axes=[2], starts=[4], ends=[9223372036854775807]>(x)",
            9,
            "s = Constant<value_ints=[4]>() e = Constant<value_ints=[32]>() a = Constant<value_ints=[-1]>()"
            "y = Slice(x, s, e, a)",
        ),
        ("y = Softmax<axis=2>(x)", 11, "y = Softmax(x)"),
        ("y = Dropout<ratio=0.5>(x)", 11, "y = Dropout(x)"),
        ("y = Pad<pads=[0,0,1,0,0,2]>(x)", 10, "p = Constant<value_ints=[0,0,1,0,0,2]>() y = Pad(x, p)"),
    ],
)
def test_opsets_spell_the_same_operator(old, opset, new):
    a, b = last(old, opset=opset), last(new)
    assert "::" not in a.op
    assert (a.op, dict(a.attrs), a.shape, a.index) == (b.op, dict(b.attrs), b.shape, b.index)
    assert [v.name for v in a.inputs] == [v.name for v in b.inputs] == ["x"]


@pytest.mark.parametrize(
    ("body", "opset", "op"),
    [
        ("y = Softmax<axis=1>(x)", 11, "ai.onnx::Softmax"),  # normalises axes 1 and 2 together
        ("y = Clip<min=0.0>(x)", 6, "ai.onnx::Clip"),
        ("y = Gelu(x)", 20, "gelu"),
        ("y = com.microsoft.Gelu(x)", 18, "com.microsoft::Gelu"),
        (
            "w = Constant<value_floats=[1.0]>() y = com.microsoft.BiasGelu(x, w)",
            18,
            "com.microsoft::BiasGelu",
        ),
        ("y = Gemm<alpha=0.5>(x, x)", 18, "ai.onnx::Gemm"),
    ],
)
def test_what_has_no_canonical_spelling_keeps_its_name(body, opset, op):
    assert last(body, opset=opset).op == op


SIZES = """
    s = Shape(x) zero = Constant<value_int=0>() one = Constant<value_int=1>()
    axes = Constant<value_ints=[0]>()
    b0 = Gather(s, zero) b = Unsqueeze(b0, axes) l0 = Gather(s, one) l = Unsqueeze(l0, axes)
    four = Constant<value_ints=[4]>() eight = Constant<value_ints=[8]>() any = Constant<value_ints=[-1]>()
"""


@pytest.mark.parametrize(
    ("parts", "shape"),
    [
        ("b, l, four, eight", ("batch", "length", 4, 8)),
        ("b, l, four, any", ("batch", "length", 4, 8)),
        ("any, l, four, eight", ("batch", "length", 4, 8)),
        ("any, four, eight", ("batch*length", 4, 8)),
        ("b, any", ("batch", "32*length")),
    ],
)
def test_shape_arithmetic_is_folded_into_the_reshape(parts, shape):
    value = last(f"{SIZES} t = Concat<axis=0>({parts}) y = Reshape(x, t)")
    assert value.op == "reshape"
    assert [v.name for v in value.inputs] == ["x"]
    assert value.shape == shape
    assert value.attrs["shape"] == tuple(d if isinstance(d, int) else None for d in shape)


def test_reshape_copies_axes_at_zero_and_expand_keeps_them_at_minus_one():
    assert last("t = Constant<value_ints=[0, 0, 4, -1]>() y = Reshape(x, t)").shape == (
        "batch",
        "length",
        4,
        8,
    )
    # PyTorch's TorchScript exporter writes expand(-1, n) as Where(Equal(shape, -1), ones, shape).
    body = f"""{SIZES} none = Constant<value_ints=[-1]>() t = Concat<axis=0>(b, l, any)
        is = Equal(t, none) n = Constant<value_ints=[3]>()
        ones = ConstantOfShape<value: tensor = int64[1] {{1}}>(n)
        u = Where(is, ones, t) y = Expand(x, u)"""
    assert last(body).shape == ("batch", "length", 32)


def test_a_dimension_is_one_value_of_the_tensor_it_measures():
    view = OnnxView(
        model(f"{SIZES} y = Range(zero, l0, one)", signature="(float[batch,length,32] x) => (int64[] y)")
    )
    size = view.outputs[0].inputs[1]
    assert (size.op, size.inputs[0].name, dict(size.attrs)) == ("dim", "x", {"axis": 1})
    assert view.outputs[0].shape == ("length",)
    assert view.sizes(size.native) == ("length",)


def test_a_slice_to_the_end_of_an_unknown_axis_ends_at_end():
    value = last(
        "s = Constant<value_ints=[1]>() e = Constant<value_ints=[2147483647]>() y = Slice(x, s, e, s)"
    )
    assert dict(value.attrs) == {"axis": 1, "start": 1, "end": END, "step": 1}


@pytest.mark.parametrize(("start", "end", "expected"), [(1, 2, (1, 2)), (-1, 9, (2, 3)), (0, 3, (0, 3))])
def test_a_slice_of_a_shape_is_a_shape(start, end, expected):
    body = f"""s = Shape(x) f = Constant<value_ints=[{start}]>() t = Constant<value_ints=[{end}]>()
        y = Slice(s, f, t)"""
    value = last(body, signature="(float[batch,length,32] x) => (int64[] y)")
    assert (value.op, value.inputs[0].name) == ("shape", "x")
    assert dict(value.attrs) == dict(zip(("start", "end"), expected, strict=True))
    value = last(
        body.replace("Shape(x)", "Shape<start=1>(x)"), signature="(float[a,batch,length,32] x) => (int64[] y)"
    )
    assert dict(value.attrs) == {"start": expected[0] + 1, "end": expected[1] + 1}


@pytest.mark.parametrize(
    ("equation", "shape"),
    [("blc,blc->bl", ("batch", "length")), ("bic,bjc->bij", ("batch", "length", "length")), ("blc,blc", None),
     ("b...,b...->b", None)],
)  # fmt: skip
def test_an_einsums_shape_is_read_off_its_letters(equation, shape):
    assert last(f'y = Einsum<equation="{equation}">(x, x)').shape == shape


def test_what_is_sliced_off_a_shape_by_a_computed_bound_stays_a_slice():
    body = (
        "s = Shape(x) zero = Constant<value_ints=[0]>() one = Constant<value_int=1>() n = Gather(s, one)"
        " a = Constant<value_ints=[0]>() t = Unsqueeze(n, a) y = Slice(s, zero, t)"
    )
    assert last(body, signature="(float[batch,length,32] x) => (int64[] y)").op == "slice"


def test_what_a_subgraph_takes_from_outside_counts_as_a_use():
    body = """c = Constant<value_int=1>() flag = Cast<to=9>(c) inner = Relu(x)
        y = If (flag) <then_branch = a () => (float[] p) { p = Neg(inner) },
                       else_branch = b () => (float[] q) { q = Identity(x) }>"""
    view = OnnxView(model(body))
    branch = view.outputs[0]
    assert branch.op == "ai.onnx::If"
    assert sorted(v.name for v in branch.inputs) == ["flag", "inner", "x"]
    relu = next(v for v in view if v.name == "inner")
    assert relu.users == [branch]


class Plain(torch.nn.Module):
    """BERT with a forward that the TorchScript exporter can trace."""

    def __init__(self):
        super().__init__()
        self.model = zoo.ARCHITECTURES["bert"].build("eager")

    def forward(self, ids, mask, types):
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


@pytest.mark.parametrize("opset", [12, 14, 17])
def test_the_torchscript_exporters_files_carry_no_shapes_and_mean_the_same(opset):
    module, buffer, names = Plain().eval(), io.BytesIO(), ["ids", "mask", "types"]
    torch.onnx.export(
        module, tuple(zoo.ARCHITECTURES["bert"].inputs(2, 7).values()), buffer, dynamo=False,
        opset_version=opset, input_names=names, dynamic_axes={n: {0: "batch", 1: "length"} for n in names},
    )  # fmt: skip
    view = OnnxView(ir.from_proto(onnx.load_from_string(buffer.getvalue())))
    assert not [v for v in view if v.shape is None or v.dtype is None or "::" in v.op]
    tensors = zoo.ARCHITECTURES["bert"].inputs(3, 9).values()
    feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    found = interpreter.run(view, feed, {"batch": 3, "length": 9})
    with torch.no_grad():
        np.testing.assert_allclose(found[view.outputs[0]], module(*tensors), atol=5e-5)


def test_values_of_one_native_value_are_one():
    graph = model("a = Mul(x, x) y = Relu(a)")
    one, other = OnnxView(graph), OnnxView(graph)
    assert one.values == other.values
    assert len(set(one.values) | set(other.values)) == len(one.values)
    square = one.outputs[0].inputs[0]
    assert one.of(square.native) is square
    assert one.inputs[0].users == [square]  # used twice, listed once


def editable():
    """y = Relu(x + w) + (x + w), with a graph output that is also used inside."""
    return model(
        "s = Add(x, w) y = Relu(s)", signature="(float[2] x) => (float[2] y, float[2] s) <float[2] w = {1,2}>"
    )


def run(graph: ir.Model) -> list[np.ndarray]:
    proto = ir.to_proto(graph)
    checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"x": np.array([-3, 4], np.float32)})


def test_replacing_an_output_keeps_its_name_and_every_use():
    graph = editable()
    editor = Editor(graph)
    old = graph.graph[0].outputs[0]
    scale = editor.initializer(np.array([10, 10], np.float32), "w")
    new = editor.node("Mul", [old.producer().inputs[0], scale], "s", before=old.producer())

    editor.replace(old, new.outputs[0])
    assert editor.prune() == 2  # the Add, and the weight only it used

    assert [v.name for v in graph.graph.outputs] == ["y", "s"]
    assert scale.name == "w_1"
    np.testing.assert_array_equal(run(graph), [[0, 40], [-30, 40]])


@pytest.mark.parametrize("by", ["input", "other output", "initializer"])
def test_an_output_replaced_by_what_has_a_name_of_its_own_gets_a_copy(by):
    graph = editable()
    editor = Editor(graph)
    y, s = graph.graph.outputs
    new = {"input": graph.graph.inputs[0], "other output": s, "initializer": graph.graph.initializers["w"]}[
        by
    ]

    editor.replace(y, new)
    editor.prune()

    assert [v.name for v in graph.graph.outputs] == ["y", "s"]
    expected = {"input": [-3, 4], "other output": [-2, 6], "initializer": [1, 2]}[by]
    np.testing.assert_array_equal(run(graph), [expected, [-2, 6]])


def test_names_are_unique_and_depend_on_the_graph_alone():
    names = []
    for _ in range(2):
        editor = Editor(editable())
        names.append([editor.name("s"), editor.name("s"), editor.name("new"), editor.name("x")])
    assert names[0] == names[1] == ["s_1", "s_2", "new", "x_1"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Add", "Relu", "Neg"]), st.integers(0, 5)), min_size=1, max_size=12)
)
def test_pruning_removes_exactly_what_no_output_needs(steps):
    body, names = "", ["x"]
    for number, (op, back) in enumerate(steps):
        operand = names[-1 - back % len(names)]
        body += f"v{number} = {op}({operand}{', x' if op == 'Add' else ''}) "
        names.append(f"v{number}")
    graph = model(f"{body} y = Identity({names[-1]})", signature="(float[2] x) => (float[2] y)")
    needed, stack = set(), [graph.graph.outputs[0].producer()]
    while stack:
        node = stack.pop()
        needed.add(node)
        stack += [v.producer() for v in node.inputs if v.producer() is not None]
    before, expected = run(graph), [n.name for n in graph.graph if n in needed]

    Editor(graph).prune()

    assert [n.name for n in graph.graph] == expected
    np.testing.assert_array_equal(run(graph), before)

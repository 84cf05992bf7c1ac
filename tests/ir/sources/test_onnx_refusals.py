"""ONNX files that are broken or hostile: one sentence that names the thing, soon, and nothing left behind."""

import numpy as np
import onnx
import pytest
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.external_data_helper import set_external_data


def model(body="y = MatMul(x, w)", opset=18, signature="(float[n,4] x) => (float[n,4] y)", functions=""):
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "f" : 1]> m {signature} {{ {body} }} {functions}'
    made = parser.parse_model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    return made


def changed(change, **arguments):
    made = model(**arguments)
    change(made)
    return made


def refusal(made, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CaptureError) as refused:
        capture(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"'{path}'")
    assert sorted(tmp_path.iterdir()) == before
    return str(refused.value)


def weight(**fields):
    def change(made):
        tensor = made.graph.initializer[0]
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(tensor, name)[:] = value
            else:
                setattr(tensor, name, value)

    return change


def untyped_input(made):
    made.graph.input[0].type.tensor_type.elem_type = 0


def twice(made):
    made.graph.initializer.append(made.graph.initializer[0])


def sparse_bomb(made):
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0])), [2**20, 2**20])
    made.graph.sparse_initializer.append(sparse)


def sparse_outside(made):
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([99])), [4, 4])
    made.graph.sparse_initializer.append(sparse)


def attribute(name, kind=None, **values):
    """Of the first node; of a kind of its own."""

    def change(made):
        node = made.graph.node[0]
        node.attribute.append(onnx.AttributeProto(name=name, type=kind, **values))

    return change


def large_input(made):
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**31


def type_99(made):
    made.graph.output[0].type.tensor_type.elem_type = 99


def elsewhere(**entry):
    def change(made):
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entry.items():
            tensor.external_data.add(key=key, value=value)

    return change


def constant(value):
    def change(made):
        tensor = numpy_helper.from_array(np.array([value], np.float32))
        made.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))
        made.graph.node.append(helper.make_node("Mul", ["x", "c"], ["unused"]))

    return change


FAULTS = {
    "the attribute 'axis' of Softmax (y) has no type": {
        "body": "y = Softmax(x)", "change": attribute("axis", i=1)
    },
    "Softmax (y) has an attribute 'axis' of type STRING and not INT": {
        "body": 'y = Softmax<axis="last">(x)'
    },
    "Softmax (y) has the attribute 'axis' twice": {
        "body": "y = Softmax<axis=1>(x)", "change": attribute("axis", onnx.AttributeProto.INT, i=0)
    },
    "Relu (y) has an attribute 'slope', which ONNX doesn't know": {"body": "y = Relu<slope=2>(x)"},
    "Loop (y) lacks its attribute 'body'": {"body": "y = Loop(, , x)"},
    "Cast (y) makes a type that ONNX doesn't know (77)": {"body": "y = Cast<to=77>(x)"},
    "Constant (c) gives 2 values": {"body": "c = Constant<value_int=1, value_float=1.0>() y = Add(x, w)"},
    "'y' is of no type that ONNX knows (99)": {"change": type_99},
    "takes 8,589,934,592 numbers and more in 'x'; at most 67,108,864": {"change": large_input},
    "is of text, and holds raw_data": {"change": weight(data_type=TensorProto.STRING)},
    "'w' lies in another file, and no entry says in which": {"change": elsewhere(offset="0")},
    "the offset of the weight 'w' is no whole number from 0 on: 'far'": {
        "change": elsewhere(location="w.bin", offset="far")
    },
    "the offset of the weight 'w' is no whole number from 0 on: '-1'": {
        "change": elsewhere(location="w.bin", offset="-1")
    },
    "is of IR version 1099511627776; the onnx installed knows 1 to": {
        "change": lambda made: setattr(made, "ir_version", 2**40)
    },
    "its nodes form a cycle": {"body": "a = Add(x, b) b = Relu(a) y = MatMul(a, w)"},
    "sizes [5, 4] (FLOAT) needs 80 bytes and holds 64": {"change": weight(dims=[5, 4])},
    "has a negative size": {"change": weight(dims=[-4, 4])},
    "has no type that ONNX knows (0)": {"change": weight(data_type=0)},
    "has no type that ONNX knows (99)": {"change": weight(data_type=99)},
    "is stored twice: float_data and raw_data": {"change": weight(float_data=[1.0] * 16)},
    "two of its weights are called 'w'": {"change": twice},
    "it imports no opset": {"change": lambda made: made.ClearField("opset_import")},
    "it says no ir_version": {"change": lambda made: made.ClearField("ir_version")},
    "is of opset 0": {"change": lambda made: setattr(made.opset_import[0], "version", 0)},
    "takes no inputs": {"body": "y = Relu(w)", "signature": "() => (float[4,4] y)"},
    "does not say the type and shape of its input 'x'": {"change": untyped_input},
    "takes text in 'x'": {"signature": "(string[n] x) => (float[n] y)", "body": "y = Relu(w)"},
    "takes 'x', which is no tensor": {
        "signature": "(seq(float[n]) x) => (float[n] y)", "body": "y = Relu(w)"
    },
    "two of its results are called 'y'": {"body": "y = Relu(x) y = MatMul(x, w)"},
    "'x' is given, and computed by a node too": {"body": "x = Relu(w) y = MatMul(x, w)"},
    "is sparse, and [1048576, 1048576] is too much": {"change": sparse_bomb},
    "is sparse, with positions outside of it": {"change": sparse_outside},
    "the constant in Constant (c) holds NaN": {"change": constant(np.nan)},
    "the constant in Constant (c) holds infinity": {"change": constant(np.inf)},
    "was exported in training: Dropout (y) drops": {
        "body": "r = Constant<value_float=0.1>() t = Constant<value=bool {1}>() y = Dropout(x, r, t)"
    },
    "nothing produces 'nowhere'": {
        "body": """y = If (q) <then_branch = t () => (float[n,4] z) { z = Add(x, nowhere) },
                               else_branch = e () => (float[n,4] v) { v = Identity(x) }>""",
        "signature": "(float[n,4] x, bool q) => (float[n,4] y)",
    },
    "its function g calls itself": {
        "body": "y = f.g(x)",
        "functions": '<opset_import: ["" : 18, "f" : 1], domain: "f"> g (x) => (y) { y = f.g(x) }',
    },
    "nodes with its functions written out; at most 200,000": {
        "body": "y = f.g0(x)",
        "functions": " ".join(
            f'<opset_import: ["" : 18, "f" : 1], domain: "f"> g{i} (x) => (y) '
            f"{{ a = f.g{i + 1}(x) y = f.g{i + 1}(a) }}" for i in range(40)
        ) + ' <opset_import: ["" : 18], domain: "f"> g40 (x) => (y) { y = Relu(x) }',
    },
    "a loop, Loop (y), that never ends": {
        "body": """c = Constant<value=bool {1}>()
            y = Loop (, c, x) <body = b (int64 i, bool q, float[n,4] s) => (bool r, float[n,4] t)
                                 { r = Identity(q) t = Relu(s) }>""",
    },
    "a loop, Loop (y), that turns 9,000,000,000 times": {
        "body": """m = Constant<value=int64 {9000000000}>() c = Constant<value=bool {1}>()
            y = Loop (m, c, x) <body = b (int64 i, bool q, float[n,4] s) => (bool r, float[n,4] t)
                                 { r = Identity(q) t = Relu(s) }>""",
    },
}  # fmt: skip


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_broken_file_is_refused_by_what_is_broken(tmp_path, sentence):
    arguments = dict(FAULTS[sentence])
    assert sentence in refusal(changed(arguments.pop("change", lambda made: None), **arguments), tmp_path)


@pytest.mark.parametrize(
    ("version", "body", "said"),
    [
        (
            18,
            "y = Transpose<perm=[5, 6]>(x)",
            "is no valid model, as ONNX Runtime has it: Node () Op (Transpose)",
        ),
        (11, "y = Squeeze<axes=[1]>(x)", "does not run the file as it is (Node () Op (Squeeze)"),
    ],
)
def test_what_onnx_runtime_says_of_a_file_is_told_without_its_numbers_and_paths(
    tmp_path, version, body, said
):
    sentence = refusal(model(body, version), tmp_path)
    assert said in sentence
    assert "ONNXRuntimeError" not in sentence
    assert sentence.count(str(tmp_path)) == 1


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    content = model(body="y = Relu(x)").SerializeToString().replace(b"Relu", b"Re\xffu")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CaptureError, match="a name in it is not UTF-8 text: b'Re") as refused:
        capture(tmp_path / "m.onnx")
    assert "\n" not in str(refused.value)


def test_texts_among_the_weights_are_no_fault(tmp_path):
    made = model()
    made.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"\xff"]))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert capture(tmp_path / "m.onnx").outputs == ("y",)


def test_attributes_that_a_function_leaves_to_its_caller_are_taken(tmp_path):
    function = """<opset_import: ["" : 18], domain: "f">
                  g <along> (x) => (y) { y = Softmax<axis: int = @along>(x) }"""
    made = model("y = f.g<along=1>(x)", functions=function)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert [node.op_type for node in capture(tmp_path / "m.onnx").graph.graph] == ["Softmax"]


def test_a_loop_that_ends_soon_is_read(tmp_path):
    body = """m = Constant<value=int64 {3}>() c = Constant<value=bool {1}>()
              y = Loop (m, c, x) <body = b (int64 i, bool q, float[n,4] s) => (bool r, float[n,4] t)
                                   { r = Identity(q) t = Relu(s) }>"""
    (tmp_path / "m.onnx").write_bytes(model(body).SerializeToString())
    assert capture(tmp_path / "m.onnx").outputs == ("y",)


@pytest.mark.parametrize("length", [16, 8192])
def test_external_weights_are_as_long_as_they_say(tmp_path, length):
    made = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> m (float[n,32] x) => (float[n,32] y) { y = MatMul(x, w) }'
    )
    made.graph.initializer.append(numpy_helper.from_array(np.eye(32, dtype=np.float32), "w"))
    (tmp_path / "w.bin").write_bytes(made.graph.initializer[0].raw_data * 2)
    set_external_data(made.graph.initializer[0], "w.bin", 0, length)
    made.graph.initializer[0].ClearField("raw_data")
    wanted = f"the weight 'w' needs 4096 bytes, and its entry for 'w.bin' says {length}"
    assert wanted in refusal(made, tmp_path)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT4,
                                   TensorProto.UINT8, TensorProto.COMPLEX64, TensorProto.BOOL])  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_whole_tensors_of_every_type_are_taken(tmp_path, dtype, raw):
    values = np.array([1, 0, 1], np.complex64 if dtype == TensorProto.COMPLEX64 else np.float32)
    if raw:
        array = helper.make_tensor("t", dtype, [3], values)
        values = numpy_helper.to_array(array).tobytes() if dtype != TensorProto.INT4 else b"\x01\x01"
    tensor = helper.make_tensor("t", dtype, [3], values, raw=raw)
    made = model(opset=21)
    made.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert capture(tmp_path / "m.onnx").outputs == ("y",)
    assert onnx.__version__

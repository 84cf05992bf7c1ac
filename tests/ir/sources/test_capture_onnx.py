"""Capturing ONNX files of every exporter; what is broken or hostile is refused."""

import json

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.execute import execute
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.external_data_helper import set_external_data

TOLERANCE = 5e-5  # of max(1, |reference|): single precision by another library
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


class Plain(torch.nn.Module):
    """BERT with a forward that both exporters can trace."""

    def __init__(self):
        super().__init__()
        self.model = zoo.ARCHITECTURES["bert"].build("eager")

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """exporter -> file."""
    folder, module = tmp_path_factory.mktemp("onnx"), Plain().eval()
    example = tuple(zoo.ARCHITECTURES["bert"].inputs(2, 7).values())
    files = {name: folder / f"{name}.onnx" for name in ("dynamo", "torchscript", "opset11")}
    axes = {n: {0: "b", 1: "t"} for n in NAMES}
    for name, opset in (("torchscript", 17), ("opset11", 11)):
        torch.onnx.export(module, example, files[name], dynamo=False, opset_version=opset, input_names=NAMES,
                          output_names=["hidden"], dynamic_axes=axes)  # fmt: skip
    batch, length = torch.export.Dim("n", min=2, max=99), torch.export.Dim("m", min=2, max=64)
    shapes = {n: {0: batch, 1: length} for n in NAMES}
    torch.onnx.export(module, example, files["dynamo"], dynamo=True, dynamic_shapes=shapes, verbose=False,
                      external_data=True, optimize=True)  # fmt: skip
    assert (folder / "dynamo.onnx.data").is_file()
    return files


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript", "opset11"])
def test_every_exporters_file_gives_what_pytorch_gives(exported, exporter):
    program = capture(exported[exporter])

    assert program.dialect == "onnx"
    assert program.graph.graph.opset_imports[""] >= 18
    assert [(s.name, s.dtype, s.shape, s.role, s.high) for s in program.inputs] == [
        ("input_ids", "int64", ("batch", "length"), "token_ids", 101),
        ("attention_mask", "int64", ("batch", "length"), "attention_mask", None),
        ("token_type_ids", "int64", ("batch", "length"), "token_type_ids", 2),
    ]
    assert program.symbols == {"batch": (1, 2**31 - 1), "length": (1, 64)}
    module, (name,) = Plain().eval(), program.outputs
    sizes = [(2, 3), (5, 19)] + ([(1, 1)] if exporter != "dynamo" else [])
    feeds = [zoo.ARCHITECTURES["bert"].inputs(*size) for size in sizes]
    results = execute(program, [{k: v.numpy() for k, v in feed.items()} for feed in feeds])
    for feed, result in zip(feeds, results, strict=True):
        with torch.no_grad():
            wanted = module(**feed).numpy()
        assert (np.abs(result[name] - wanted) / np.maximum(1, np.abs(wanted))).max() < TOLERANCE


def test_a_task_a_tokenizer_and_lengths_are_taken_from_beside_the_file(exported, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(exported["torchscript"].read_bytes())
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"},
              "max_position_embeddings": 48}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 40}')
    program = capture(tmp_path / "onnx" / "model.onnx")
    assert (program.task, program.info["labels"]) == ("sequence-classification", ["no", "yes"])
    assert (program.symbols["length"], program.info["max_length"]) == ((1, 48), 40)
    assert list(program.tokenizer) == ["tokenizer_config.json"]
    assert capture(tmp_path / "onnx" / "model.onnx", task="features").task == "features"


def small(
    tmp_path, body="y = MatMul(x, w)", opset=18, signature="(float[n,4] x) => (float[n,4] y)", weight=None
):
    """A one-matrix model on disk."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> main {signature} {{ {body} }}'
    model = parser.parse_model(text)
    weight = np.eye(4, dtype=np.float32) if weight is None else weight
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(tmp_path, location, size=4096):
    """A model with its weight in another file, and what belongs into that."""
    signature, weight = "(float[n,32] x) => (float[n,32] y)", np.eye(32, dtype=np.float32)
    path = small(tmp_path, signature=signature, weight=weight)
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    data = weight.raw_data
    set_external_data(weight, location, 0, len(data))
    weight.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path, data[:size]


def refusal(path) -> str:
    with pytest.raises(CaptureError) as refused:
        capture(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_model_of_another_shape_is_taken_as_it_is(tmp_path):
    body = "c = Conv(x, k) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, w)"
    kernel = helper.make_tensor("k", TensorProto.FLOAT, (4, 3, 3, 3), np.ones(108, np.float32))
    path = small(tmp_path, body, signature="(float[?,3,h,h] x) => (float[?,4] y)")
    model = onnx.load(path)
    model.graph.initializer.append(kernel)
    path.write_bytes(model.SerializeToString())

    program = capture(path)

    (spec,) = program.inputs
    assert (spec.shape, spec.role) == (("x_0", 3, "h", "h"), "pixel_values")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(execute(program, [{"x": x}])[0]["y"], wanted, atol=TOLERANCE)


def test_weights_listed_among_the_inputs_are_weights(tmp_path):
    path = small(tmp_path, opset=9, signature="(float[n,4] x, float[4,4] w) => (float[n,4] y)")
    assert [s.name for s in capture(path).inputs] == ["x"]


def test_external_weights_stay_on_disk_and_are_read_in_place(tmp_path):
    path, data = external(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(data)
    program = capture(path)
    tensor = program.graph.graph.initializers["w"].const_value
    assert str(tensor.location) == "w.bin"
    np.testing.assert_array_equal(tensor.numpy(), np.eye(32))


def test_small_external_weights_are_read_in(exported):
    weights = [v.const_value for v in capture(exported["dynamo"]).graph.graph.initializers.values()]
    assert {type(w) for w in weights if w.nbytes > 1024} == {onnx_ir.ExternalTensor}
    assert onnx_ir.ExternalTensor not in {type(w) for w in weights if w.nbytes <= 1024}


def test_external_weights_outside_of_the_directory_are_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 4096)
    for location in ("../secret", str(tmp_path / "secret"), "a/../../secret", "..\\secret", "C:\\secret"):
        assert "outside of its directory: not read" in refusal(external(tmp_path / "in", location)[0])
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    assert "is a link out of the model's directory" in refusal(external(tmp_path / "in", "link")[0])


def test_missing_and_truncated_external_weights_are_named(tmp_path):
    path, data = external(tmp_path, "w.bin", size=4090)
    assert refusal(path) == f"'{path}' keeps weights in 'w.bin', which is not there."
    (tmp_path / "w.bin").write_bytes(data)
    assert refusal(path) == f"'{tmp_path / 'w.bin'}' is truncated: it ends before the weight 'w'."


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_called_so(exported, tmp_path, share):
    data = exported["torchscript"].read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: int(share * len(data))])
    assert "truncated" in refusal(tmp_path / "m.onnx")


def test_what_is_no_model_is_refused(tmp_path):
    assert refusal(tmp_path / "none.onnx") == f"there is no '{tmp_path / 'none.onnx'}'."
    (tmp_path / "m.onnx").write_bytes(b"\x89PNG not a model at all, but some bytes \0\xff")
    assert "is truncated or no ONNX model" in refusal(tmp_path / "m.onnx")
    (tmp_path / "d.onnx").mkdir()
    assert str(tmp_path / "d.onnx") in refusal(tmp_path / "d.onnx")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"body": "y = Nonesuch(x, w)"}, "ONNX has no operator Nonesuch"),
        ({"body": "y = MatMul(x, v)"}, "nothing produces 'v'"),
        ({"body": "z = MatMul(x, w)"}, "nothing produces its output 'y'"),
        ({"body": "y = Squeeze<axes=[1]>(x)", "opset": 11}, "ONNX Runtime does not run the file as it is"),
        ({"opset": 99}, "is of opset 99"),
        ({"weight": np.full((4, 4), np.nan, np.float32)}, "the weight 'w' holds NaN"),
        ({"weight": np.full((4, 4), -np.inf, np.float32)}, "the weight 'w' holds infinity"),
        ({"weight": np.full((4, 4), np.nan, np.float16)}, "the weight 'w' holds NaN"),
    ],
)
def test_a_model_that_cannot_be_right_is_refused(tmp_path, model, sentence):
    assert sentence in refusal(small(tmp_path, **model))


def test_nan_in_external_weights_is_found(tmp_path):
    path, _ = external(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(np.full((32, 32), np.nan, np.float32).tobytes())
    assert "the weight 'w' holds NaN" in refusal(path)


def test_infinity_in_a_mask_is_no_fault(tmp_path):
    weight = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    program = capture(small(tmp_path, "s = Add(x, w) y = Softmax(s)", weight=weight))
    assert program.outputs == ("y",)


def test_a_custom_operator_is_kept_under_its_name(tmp_path):
    program = capture(small(tmp_path, "y = com.example.Thing(x, w)"))
    assert [node.op_type for node in program.graph.graph] == ["Thing"]

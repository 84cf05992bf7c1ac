"""Files in bfloat16 become programs in float32 with the same weights."""

import copy

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.execute import execute
from graphwright.ir.onnx.in_float32 import computes_in_bfloat16
from handmade import parsed
from onnx import helper
from torch import nn

NAMES = ["input_ids", "attention_mask", "token_type_ids"]
TOLERANCE = 2e-5  # of max(1, the largest number): single precision by another library


class Plain(nn.Module):
    """BERT with a forward that both exporters can trace."""

    def __init__(self):
        super().__init__()
        self.model = zoo.ARCHITECTURES["bert"].build("eager").bfloat16()

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


@pytest.fixture(scope="module", params=["dynamo", "torchscript"])
def file(request, tmp_path_factory):
    """A BERT in bfloat16, with its weights beside it, or at an opset that is raised."""
    path, module = tmp_path_factory.mktemp("bfloat16") / "m.onnx", Plain().eval()
    example = tuple(zoo.ARCHITECTURES["bert"].inputs(2, 7).values())
    if request.param == "torchscript":
        axes = {n: {0: "b", 1: "t"} for n in NAMES}
        torch.onnx.export(module, example, path, dynamo=False, opset_version=17, input_names=NAMES,
                          output_names=["hidden"], dynamic_axes=axes)  # fmt: skip
        return path
    batch, length = torch.export.Dim("n", min=2, max=99), torch.export.Dim("m", min=2, max=64)
    shapes = {n: {0: batch, 1: length} for n in NAMES}
    torch.onnx.export(module, example, path, dynamo=True, dynamic_shapes=shapes, verbose=False,
                      external_data=True, optimize=True)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def wanted():
    """(what a call is given, the same weights in float32 by eager PyTorch)."""
    feed = zoo.ARCHITECTURES["bert"].inputs(3, 11)
    with torch.no_grad():
        return feed, copy.deepcopy(Plain().eval()).float()(**feed).numpy()


def test_a_file_in_bfloat16_is_computed_in_float32_with_its_own_weights(file, wanted):
    program = capture(file)
    feed, expected = wanted
    assert {spec.dtype for spec in program.inputs} == {"int64"}
    types = {value.const_value.dtype for value in program.graph.graph.initializers.values()}
    assert onnx_ir.DataType.BFLOAT16 not in types
    (found,) = execute(program, [{name: tensor.numpy() for name, tensor in feed.items()}])
    (found,) = found.values()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * max(1, np.abs(expected).max()), rtol=0)
    assert any("m.onnx: computes in bfloat16, for which runtimes lack" in n for n in program.info["notes"])


W = np.random.default_rng(0).standard_normal((4, 4)).astype(ml_dtypes.bfloat16)


def saved(tmp_path, body, x="float[b,4] x", y="float[b,4] y", **weights):
    program = parsed(body, x, y, weights or {"w": W})
    onnx_ir.save(program.graph, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    "body",
    [
        "f = Cast<to=1>(w) y = MatMul(x, f)",
        "t = Transpose(w) f = Cast<to=1>(t) y = MatMul(x, f)",
        "r = Gather(w, i) f = Cast<to=1>(r) y = Add(x, f)",
        "h = Cast<to=16>(x) f = Cast<to=1>(h) u = Cast<to=1>(w) y = MatMul(f, u)",
    ],
)
def test_what_is_stored_or_rounded_in_bfloat16_and_computed_in_float32_stays(tmp_path, body):
    path = saved(tmp_path, body, w=W, i=np.array([0]))
    program = capture(path)
    assert not computes_in_bfloat16(program.graph)
    assert program.graph.graph.initializers["w"].const_value.dtype == onnx_ir.DataType.BFLOAT16
    assert "notes" not in program.info


@pytest.mark.parametrize(
    ("body", "x", "y"),
    [
        ("h = Cast<to=16>(x) p = MatMul(h, w) y = Cast<to=1>(p)", "float", "float"),
        ("t = Transpose(w) h = CastLike(x, t) p = MatMul(h, t) y = Cast<to=1>(p)", "float", "float"),
        ("p = MatMul(x, w) y = Cast<to=1>(p)", "bfloat16", "float"),
        ("h = Cast<to=16>(x) y = MatMul(h, w)", "float", "bfloat16"),
        ("y = Identity(x)", "bfloat16", "bfloat16"),
        ("o = ConstantOfShape<value=bfloat16[1] {16320}>(s) h = Cast<to=16>(x) p = Mul(h, o)"
         " y = Cast<to=1>(p)",
         "float", "float"),
        ("y = If(c) <then_branch = g() => (float[b,4] a)"
         " { h = Cast<to=16>(x) p = MatMul(h, w) a = Cast<to=1>(p)},"
         " else_branch = f() => (float[b,4] e) { e = Neg(x) }>", "float", "float"),
    ],
)  # fmt: skip
def test_what_computes_in_bfloat16_anywhere_computes_in_float32(tmp_path, body, x, y):
    path = saved(tmp_path, body, f"{x}[b,4] x", f"{y}[b,4] y", w=W, s=np.array([1, 4]), c=np.array(True))
    program = capture(path)
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    (found,) = execute(program, [{"x": x}])
    w = W.astype(np.float64)
    if "CastLike" in body:
        w = w.T
    expected = {"Iden": x, "Cons": 1.5 * x}.get(body.split(" = ")[1][:4], x.astype(np.float64) @ w)
    assert found["y"].dtype == np.float32
    np.testing.assert_allclose(found["y"], expected, atol=1e-6, rtol=1e-6)
    assert not computes_in_bfloat16(program.graph)


def test_bits_of_a_bfloat16_are_read_in_no_float32(tmp_path):
    nodes = [helper.make_node("BitCast", ["x"], ["b"], to=4), helper.make_node("Cast", ["b"], ["y"], to=1)]
    ends = [helper.make_tensor_value_info(*each, ["n"]) for each in (("x", 16), ("y", 1))]
    graph = helper.make_graph(nodes, "bits", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)]), tmp_path / "m.onnx")
    with pytest.raises(
        CaptureError, match=r"computed in float32, and its node BitCast .* reads bits: export"
    ):
        capture(tmp_path / "m.onnx")

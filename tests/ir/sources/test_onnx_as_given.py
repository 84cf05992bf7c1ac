"""What capture converts gives the numbers of the file as it is: old opsets, functions, fused operators."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.execute import execute
from graphwright.ir.sources import as_given
from graphwright.ir.view import view
from onnx import helper, numpy_helper, parser

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)
CUBE = RNG.standard_normal((2, 3, 4)).astype(np.float32)


def session(path):
    """ONNX Runtime on the file as given, without graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options)


def write(tmp_path, text, **weights):
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def same(path, feed, atol=1e-5):
    """Captured, and equal to the file as given; the program."""
    program = capture(path)
    wanted = dict(zip(program.outputs, session(path).run(None, feed), strict=True))
    (found,) = execute(program, [feed])
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=atol, rtol=1e-5)
    return program


def old(body, opset, signature="(float[a,b,c] x) => (float[i,j,k] y)", **imports):
    more = "".join(f', "{domain}" : {version}' for domain, version in imports.items())
    return f'<ir_version: 6, opset_import: ["" : {opset}{more}]> m {signature} {{ {body} }}'


@pytest.mark.parametrize("opset", [9, 11, 12])
@pytest.mark.parametrize("operator", ["Hardmax", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", ["", "<axis=0>", "<axis=2>"])
def test_axes_that_were_normalised_together_still_are(tmp_path, opset, operator, axis):
    same(write(tmp_path, old(f"y = {operator}{axis}(x)", opset)), {"x": CUBE})


def test_hardmax_inside_a_branch_keeps_its_axes(tmp_path):
    body = """y = If (q) <then_branch = t () => (float[n,k,l] z) { z = Hardmax(x) },
                          else_branch = e () => (float[n,k,l] w) { w = Identity(x) }>"""
    path = write(tmp_path, old(body, 11, "(float[a,b,c] x, bool q) => (float[i,j,k] y)"))
    same(path, {"x": CUBE, "q": np.array(True)})


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 1.5, 1.7), (1, 1, 0.5, 0.6)])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_images_are_sampled_where_old_opsets_sampled_them(tmp_path, mode, scales, operator, opset):
    if operator == "Upsample" and min(scales) < 1:
        scales = (1, 1, 3, 1)
    signature = "(float[n,4,h,w] x) => (float[n,8,i,j] y)"
    text = old(f'u = {operator}<mode="{mode}">(x, s) y = Conv<pads=[1,1,1,1]>(u, k)', opset, signature)
    kernel = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
    same(write(tmp_path, text, s=np.array(scales, np.float32), k=kernel), {"x": IMAGE})


def test_an_operator_that_the_converter_does_not_know_is_refused(tmp_path):
    signature = "(float[a,4,6,6] x) => (float[i,j,k,l] y)"
    text = old("y = BatchNormalization<spatial=0>(x, g, g, g, g)", 7, signature)
    with pytest.raises(CaptureError, match="is of opset 7, and cannot be raised to 20"):
        capture(write(tmp_path, text, g=np.ones((4, 6, 6), np.float32)))


def test_an_operator_that_cannot_be_converted_is_named(tmp_path):
    signature = "(float[a,b,c] x) => (float[i,j,k] y, bool[i,j,k] kept)"
    path = write(tmp_path, old("u = Relu(x) y, kept = Dropout(u)", 10, signature))
    with pytest.raises(CaptureError, match=r"cannot be converted to newer operators: Dropout \(kept\) means"):
        capture(path)


def test_a_converter_that_changes_numbers_is_caught(tmp_path, monkeypatch):
    from graphwright.ir.sources import opset

    def wrong(proto, target):
        for node in proto.graph.node:
            node.op_type = {"Sin": "Cos"}.get(node.op_type, node.op_type)
        proto.opset_import[0].version = target
        return proto

    monkeypatch.setattr(opset, "convert_version", wrong)
    path = write(tmp_path, old("u = Relu(x) v = Sin(u) y = Exp(v)", 15))
    with pytest.raises(CaptureError, match=r"Sin \(v\) means something else there"):
        capture(path)


def test_nothing_is_compared_where_nothing_was_converted(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(as_given, "_run_file", lambda *arguments: asked.append(1) or ([], [], ""))
    capture(write(tmp_path, old("y = Sin(x)", 18)))
    assert not asked
    with pytest.raises(CaptureError, match="cannot be checked"):
        capture(write(tmp_path, old("y = Sin(x)", 17)))
    assert asked


def test_layer_norm_in_a_model_older_than_the_operator_is_read(tmp_path):
    g = RNG.standard_normal(4).astype(np.float32)
    program = same(write(tmp_path, old("u = LayerNormalization(x, g) y = Softmax(u)", 14), g=g), {"x": CUBE})
    assert recognise(view(program)).summary()["norm"] == 1


@pytest.mark.parametrize("opset", [14, 17, 20])
def test_simplified_layer_norm_in_onnx_own_domain_is_a_norm(tmp_path, opset):
    g = RNG.standard_normal(4).astype(np.float32)
    text = old("y = SimplifiedLayerNormalization<axis=-1, epsilon=0.01>(x, g)", opset)
    program = same(write(tmp_path, text, g=g), {"x": CUBE})
    assert recognise(view(program)).norm[0].epsilon == pytest.approx(0.01)


FUNCTION = """<ir_version: 9, opset_import: ["" : 20, "local" : 1]> m (float[a,b,c] x) => (float[i,j,k] y)
              { u = Relu(x) v = local.f(u) y = Relu(v) }
              <opset_import: ["" : OPSET], domain: "local"> f (x) => (y) { BODY }"""


@pytest.mark.parametrize(
    ("opset", "body"),
    [("18", "y = Exp(x)"), ("13", "o = Constant<value=int64[1] {1}>() y = Unsqueeze(x, o)")],
)
def test_a_function_of_an_older_opset_is_raised_to_the_model_s(tmp_path, opset, body):
    program = same(write(tmp_path, FUNCTION.replace("OPSET", opset).replace("BODY", body)), {"x": CUBE})
    assert not program.graph.functions


def test_a_function_that_the_runtime_reads_otherwise_is_refused(tmp_path):
    """ONNX Runtime runs a function of opset 11 by the model's opset 20, whose Softmax is of one axis."""
    path = write(tmp_path, FUNCTION.replace("OPSET", "11").replace("BODY", "y = Softmax<axis=1>(x)"))
    with pytest.raises(CaptureError, match=r"f \(.*\) means something else there"):
        capture(path)


def test_functions_are_written_out_without_copying_weights(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 20, "local" : 1]> m (float[a,b,64] x) => (float[i,j,64] y)
              { u = local.f(x, w) y = local.f(u, w) }
              <opset_import: ["" : 18], domain: "local"> f (x, w) => (y) { v = MatMul(x, w) y = Relu(v) }"""
    path = write(tmp_path, text, w=RNG.standard_normal((64, 64)).astype(np.float32))
    program = same(path, {"x": RNG.standard_normal((2, 3, 64)).astype(np.float32)}, atol=1e-3)
    assert [node.op_type for node in program.graph.graph] == ["MatMul", "Relu"] * 2


FUSED = {
    "com.microsoft.SkipLayerNormalization<epsilon=0.01>(x, x, g, g, g)": "norm",
    "com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.01>(x, x, g)": "norm",
    "com.microsoft.BiasGelu(x, g)": "",
    "com.microsoft.FastGelu(x, g)": "",
    "com.microsoft.Gelu(x)": "",
    "com.microsoft.QuickGelu<alpha=1.5>(x)": "",
    "com.microsoft.FusedMatMul<transB=1, alpha=0.5>(x, x)": "",
    "com.microsoft.FusedMatMul<transA=1>(x, x)": "",
    "com.microsoft.MultiHeadAttention<num_heads=2>(x, x, x)": "attention",
    "com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1, scale=0.3>(x, x, x, b)": "attention",
}


@pytest.mark.parametrize("operator", FUSED)
@pytest.mark.parametrize("opset", [11, 18])
def test_operators_of_the_runtime_are_written_out(tmp_path, operator, opset):
    g, b = RNG.standard_normal(4).astype(np.float32), RNG.standard_normal(12).astype(np.float32)
    path = write(
        tmp_path,
        old(f"u = {operator} y = Relu(u)", opset, **{"com.microsoft": 1}).replace("a,b,c", "a,b,4"),
        g=g,
        b=b,
    )
    program = same(path, {"x": CUBE}, atol=2e-5)
    assert {node.domain for node in program.graph.graph} == {""}
    if FUSED[operator]:
        assert recognise(view(program)).summary()[FUSED[operator]] == 1


MASKS = {
    "lengths": ("int32[a] m", np.array([3, 1], np.int32)),
    "keys": ("int32[a,b] m", np.array([[1, 0, 1], [1, 1, 0]], np.int32)),
    "pairs": ("int32[a,b,b] m", np.tril(np.ones((2, 3, 3), np.int32))),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_of_the_runtime_is_written_out_with_every_kind_of_mask(tmp_path, mask, causal):
    declared, values = MASKS[mask]
    text = old(f"y = com.microsoft.Attention<num_heads=2, unidirectional={causal}>(x, w, b, m)", 18,
               f"(float[a,b,6] x, {declared}) => (float[i,j,8] y)", **{"com.microsoft": 1})  # fmt: skip
    w, b = RNG.standard_normal((6, 24)).astype(np.float32), RNG.standard_normal(24).astype(np.float32)
    feed = {"x": RNG.standard_normal((2, 3, 6)).astype(np.float32), "m": values}
    program = same(write(tmp_path, text, w=w, b=b), feed)
    assert recognise(view(program)).summary()["attention"] == 1


def test_a_kernel_that_cannot_be_written_out_is_reported(tmp_path):
    text = old("y, p = com.microsoft.Attention<num_heads=2>(x, w, b, , past)", 18,
               "(float[a,b,6] x, float[2,a,2,c,4] past) => (float[i,j,8] y, float[2,a,2,d,4] p)",
               **{"com.microsoft": 1})  # fmt: skip
    w, b = RNG.standard_normal((6, 24)).astype(np.float32), RNG.standard_normal(24).astype(np.float32)
    missed = recognise(view(capture(write(tmp_path, text, w=w, b=b)))).missed
    assert ("y", "com.microsoft::Attention is one kernel whose parts are not read") in [
        (miss.node, miss.reason) for miss in missed
    ]


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = zoo.ARCHITECTURES["bert"].build("eager")

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT as the old exporter writes it, at opset 11."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    path = tmp_path_factory.mktemp("bert") / "bert.onnx"
    example = tuple(zoo.ARCHITECTURES["bert"].inputs(2, 7).values())
    torch.onnx.export(Plain().eval(), example, path, dynamo=False, opset_version=11, input_names=names,
                      output_names=["hidden"], dynamic_axes={n: {0: "b", 1: "t"} for n in names})  # fmt: skip
    return path


def looks_like_bert(path):
    program = capture(path)
    assert [(s.dtype, s.shape, s.role) for s in program.inputs] == [
        ("int64", ("batch", "length"), role) for role in ("token_ids", "attention_mask", "token_type_ids")
    ]
    assert program.symbols["length"] == (1, 64)
    assert recognise(view(program)).summary() == {
        "attention": 2, "feed_forward": 2, "experts": 0, "norm": 5, "embedding": 1, "residual": 4
    }  # fmt: skip
    feed = {k: v.numpy() for k, v in zoo.ARCHITECTURES["bert"].inputs(3, 11).items()}
    wanted = session(path).run(None, feed)[0]
    np.testing.assert_allclose(execute(program, [feed])[0]["hidden"], wanted, atol=2e-5)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_what_onnx_runtime_saved_is_read_as_what_it_was(bert, tmp_path, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "saved.onnx"), 4
    onnxruntime.InferenceSession(str(bert), options)
    looks_like_bert(tmp_path / "saved.onnx")


@pytest.mark.parametrize("raw", [True, False])
def test_files_of_the_transformer_optimizer_are_read_as_what_they_were(bert, tmp_path, raw):
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options, config = FusionOptions("bert"), Plain().model.config
    options.use_raw_attention_mask(raw)
    optimized = optimizer.optimize_model(str(bert), "bert", num_heads=config.num_attention_heads,
                                         hidden_size=config.hidden_size, optimization_options=options,
                                         opt_level=0)  # fmt: skip
    optimized.save_model_to_file(str(tmp_path / "optimized.onnx"))
    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert {"EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu"} <= operators
    looks_like_bert(tmp_path / "optimized.onnx")


def test_a_layout_made_for_one_processor_is_refused_by_name(tmp_path):
    text = old("y = com.microsoft.nchwc.ReorderInput(x)", 18, **{"com.microsoft.nchwc": 1})
    with pytest.raises(CaptureError, match=r"holds ReorderInput of com\.microsoft\.nchwc"):
        capture(write(tmp_path, text))


def test_sparse_weights_and_constants_are_made_dense(tmp_path):
    dense = np.zeros((4, 4), np.float32)
    dense[[0, 2], [1, 3]] = [2, 5]
    values = numpy_helper.from_array(np.array([2, 5], np.float32), "w")
    flat = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 11])), [4, 4])
    pairs = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[0, 1], [2, 3]])), [4, 4])
    model = parser.parse_model(old("u = MatMul(x, w) y = MatMul(u, c)", 18))
    model.graph.sparse_initializer.append(flat)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], sparse_value=pairs))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_allclose(
        execute(capture(tmp_path / "m.onnx"), [{"x": CUBE}])[0]["y"], CUBE @ dense @ dense, atol=1e-5
    )


NORM = """o = Constant<value=int64[1] {-1}>() e = Constant<value=float {0.001}>() mean = ReduceMean(x, o)
          c = Sub(x, mean) q = Mul(c, c) v = ReduceMean(q, o) s = Add(v, e) r = Sqrt(s) i = Reciprocal(r)
          m = Mul(i, g) a = Mul(x, m) t = Mul(mean, m) d = Sub(b, t) y = Add(a, d)"""


def test_a_norm_as_tensorflow_spells_it_is_a_norm(tmp_path):
    weights = {name: RNG.standard_normal(4).astype(np.float32) for name in "gb"}
    signature = "(float[a,b,4] x) => (float[i,j,k] y)"
    (norm,) = recognise(view(same(write(tmp_path, old(NORM, 18, signature), **weights), {"x": CUBE}))).norm
    assert (norm.kind, norm.input.name, norm.weight.name, norm.bias.name) == ("layer_norm", "x", "g", "b")
    assert norm.epsilon == pytest.approx(1e-3)
    flat = NORM.replace("m = Mul(i, g)", "m = Identity(i)")
    (norm,) = recognise(view(same(write(tmp_path, old(flat, 18, signature), **weights), {"x": CUBE}))).norm
    assert norm.weight is None


@pytest.mark.parametrize(
    ("spelled", "otherwise"),
    [("t = Mul(mean, m)", "t = Mul(v, m)"), ("c = Sub(x, mean)", "c = Sub(x, v0)"),
     ("d = Sub(b, t)", "d = Sub(t, b)"), ("a = Mul(x, m)", "a = Mul(c, m)")],
)  # fmt: skip
def test_what_only_looks_like_that_is_none(tmp_path, spelled, otherwise):
    weights = {name: RNG.standard_normal(4).astype(np.float32) for name in "gb"}
    body = NORM.replace(spelled, otherwise).replace("o = Const", "unused = Const")
    text = old(f"v0 = ReduceMax(x, o) {body}", 18, "(float[a,b,4] x) => (float[i,j,k] y)")
    path = write(tmp_path, text, o=np.array([-1]), **weights)
    assert not [norm for norm in recognise(view(capture(path))).norm if norm.root.name == "y"]


def test_a_gelu_in_a_function_for_several_types_is_one(tmp_path):
    from graphwright.passes.manager.pipeline import Pipeline

    body = """h0 = Constant<value_float=0.5>() h = CastLike(h0, x) n0 = Constant<value_float=1.4142135>()
              n = CastLike(n0, x) o0 = Constant<value_float=1.0>() o = CastLike(o0, x)
              d = Div(x, n) e = Erf(d) p = Add(e, o) q = Mul(x, p) y = Mul(h, q)"""
    text = f"""<ir_version: 9, opset_import: ["" : 20, "local" : 1]> m (float[a,b,8] x) => (float[i,j,8] y)
              {{ u = MatMul(x, w) v = Add(u, b) g = local.f(v) y = MatMul(g, z) }}
              <opset_import: ["" : 20], domain: "local"> f (x) => (y) {{ {body} }}"""
    weights = {"w": (8, 16), "b": (16,), "z": (16, 8)}
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    feed = {"x": RNG.standard_normal((2, 3, 8)).astype(np.float32)}
    program = same(write(tmp_path, text, **weights), feed, 1e-4)
    assert recognise(view(program)).feed_forward[0].activation == "gelu"
    result = Pipeline.parse("fold-constants,fuse-bias-gelu").run(program)
    assert "BiasGelu" in [node.op_type for node in result.program.graph.graph]

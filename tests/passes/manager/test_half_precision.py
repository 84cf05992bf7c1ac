"""A program in 16 bits is held to its own rounding, and to no less than that."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from fusing import weights
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.onnx.graph import Editor
from graphwright.ir.onnx.precision import widened
from graphwright.passes.manager.contract import Exact
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.verify import Verifier
from handmade import parsed
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS = 24, 4


def encoder(path, inside="float16", outside="float16"):
    """Feed-forwards with residuals and norms in 16 bits; inputs and outputs of a type of their own."""
    rng = np.random.default_rng(0)
    types = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT}
    narrow = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[inside]
    nodes, constants = [], []

    def constant(name, *shape, scale=1.0):
        constants.append(numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(narrow), name))
        return name

    def node(op, inputs, **attrs):
        nodes.append(helper.make_node(op, inputs, [f"v{len(nodes)}"], **attrs))
        return nodes[-1].output[0]

    h = node("Identity", ["x"]) if inside == outside else node("Cast", ["x"], to=types[inside])
    for layer in range(LAYERS):
        product = node("MatMul", [h, constant(f"up{layer}", WIDTH, 3 * WIDTH, scale=0.3)])
        folded = node("Mul", [constant(f"a{layer}", 3 * WIDTH), constant(f"b{layer}", 3 * WIDTH)])
        act = node("Tanh", [node("Add", [product, folded])])
        down = node("MatMul", [act, constant(f"down{layer}", 3 * WIDTH, WIDTH, scale=0.2)])
        h = node("Add", [node("Identity", [down]), h])
    nodes.append(
        helper.make_node("Identity", [h], ["y"])
        if inside == outside
        else helper.make_node("Cast", [h], ["y"], to=types[outside])
    )
    shape = ["batch", "length", WIDTH]
    graph = helper.make_graph(
        nodes, "half", [helper.make_tensor_value_info("x", types[outside], shape)],
        [helper.make_tensor_value_info("y", types[outside], shape)], constants,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return capture(path)


def shifted(program, factor):
    """The same program with its output times a factor, in its own type."""
    twin = program.clone()
    editor = Editor(twin.graph)
    old = twin.graph.graph.outputs[0]
    number = editor.initializer(np.array(factor, old.dtype.numpy()), "factor")
    new = editor.node("Mul", [old, number], "scaled", after=old.producer(), like=old)
    editor.replace(old, new.outputs[0])
    new.replace_input_with(0, old)
    return twin


def test_what_16_bits_cost_is_said_with_the_mend(tmp_path):
    notes = encoder(tmp_path / "m.onnx", "float16", "float32").info["notes"]
    (note,) = [each for each in notes if "products" in each]
    assert note.startswith(f"m.onnx: {2 * LAYERS} of {2 * LAYERS} products are computed in float16: ")
    assert note.endswith("export the model in float32 to have them")


def test_weights_stored_in_float16_and_computed_with_in_float32_are_no_note(tmp_path):
    program = parsed("w32 = Cast<to=1> (w) y = MatMul (x, w32)", "float[b,4] x", "float[b,4] y",
                     {"w": np.eye(4, dtype=np.float16)})  # fmt: skip
    onnx_ir.save(program.graph, tmp_path / "m.onnx")
    assert "float16" not in str(capture(tmp_path / "m.onnx").info.get("notes"))


def test_fusions_say_why_they_leave_a_float16_model_alone(tmp_path):
    body = """a = LayerNormalization (x, w, w) g = Gelu (a) s = Add (x, g) y = LayerNormalization (s, w, w)"""
    x, y = (f"float16[batch,length,8] {name}" for name in "xy")
    program = parsed(body, x, y, {"w": np.ones(8, np.float16)}, opset=20)
    for text, count in (("fuse-skip-layer-norm", 1), ("fuse-bias-gelu", 1)):
        (step,) = Pipeline.parse(text).run(program).steps
        assert step.status == "no change"
        assert sum("computes in float16, and" in note and "float32" in note for note in step.notes) == count


@pytest.mark.parametrize(("inside", "outside"), [("float16", "float16"), ("float16", "float32")])
def test_canonical_passes_keep_a_float16_file(tmp_path, inside, outside):
    program = encoder(tmp_path / "half.onnx", inside, outside)
    names = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
    run = Pipeline.parse(names).run(program)
    assert run.ok, [str(step.error) for step in run.steps]
    assert [step.status for step in run.steps[:2]] == ["applied", "applied"]


@pytest.mark.parametrize("factor", [2.0, 1.1, 0.0, -1.0])
def test_wrong_outputs_in_float16_are_noticed(tmp_path, factor):
    program = encoder(tmp_path / "half.onnx")
    with pytest.raises(Exception, match=r"'y' on probe 1 .* moved by"):
        Verifier().check(program, shifted(program, factor), Exact(1e-4))


def test_a_step_of_rounding_in_float16_is_none(tmp_path):
    program = encoder(tmp_path / "half.onnx")
    Verifier().check(program, shifted(program, 1 + 2**-10), Exact(1e-6))


def test_float32_programs_are_held_to_the_tolerance_itself():
    program = parsed("y = MatMul(x, w)", "float[batch,4] x", "float[batch,4] y", weights(w=(4, 4)))
    with pytest.raises(Exception, match=r"limit 0.0001\)"):
        Verifier().check(program, shifted(program, 1 + 2**-10), Exact(1e-4))


@pytest.mark.parametrize("inside", ["float16", "bfloat16"])
def test_what_is_widened_is_the_same_function(tmp_path, inside):
    program = encoder(tmp_path / "half.onnx", inside, "float32")
    wide = widened(onnx_ir.load(tmp_path / "half.onnx"))
    types = {value.dtype for node in wide.graph for value in node.outputs}
    assert types <= {onnx_ir.DataType.FLOAT, None}
    exact = execute(program.with_graph(wide), probes(program, 0))
    double = [_in_float64(program, feed["x"]) for feed in probes(program, 0)]
    for found, expected in zip(exact, double, strict=True):
        np.testing.assert_allclose(found["y"], expected, atol=2e-5, rtol=1e-5)


def test_a_program_in_float32_has_nothing_to_widen():
    program = parsed("y = MatMul(x, w)", "float[batch,4] x", "float[batch,4] y", weights(w=(4, 4)))
    assert widened(program.graph) is None


def _in_float64(program, x):
    tensors = {name: v.const_value.numpy().astype(np.float64) for name, v in
               program.graph.graph.initializers.items()}  # fmt: skip
    h = x.astype(np.float64)
    for layer in range(LAYERS):
        bias = tensors[f"a{layer}"] * tensors[f"b{layer}"]
        h = h + np.tanh(h @ tensors[f"up{layer}"] + bias) @ tensors[f"down{layer}"]
    return h


@pytest.mark.parametrize(("name", "dtype"), [("FLOAT16", np.float16), ("BFLOAT16", ml_dtypes.bfloat16)])
def test_rounding_is_that_of_the_type(name, dtype):
    body = f"""a = Cast<to = {getattr(TensorProto, name)}>(x)  b = Add(a, a)  y = Cast<to = 1>(b)"""
    program = parsed(body, "float[n] x", "float[n] y")
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    x[:3] = np.inf, -np.inf, 0
    found = execute(program.with_graph(widened(program.graph, rounding=True)), [{"x": x}])[0]["y"]
    np.testing.assert_array_equal(found, (2 * x.astype(dtype)).astype(np.float32))

"""Integer products whose sums are right where the processor's saturate, against sums in 64 bits."""

import numpy as np
import pytest
from graphwright.backends.target import detect
from graphwright.ir.execute import execute
from graphwright.ir.onnx.exact_integers import saturating, unsigned
from handmade import parsed

K, N = 32, 6
HIGH = np.full((2, 5, K), 255, np.uint8)
X = {"x": HIGH}


def weight(*shape):
    return np.random.default_rng(0).integers(100, 128, shape or (K, N)).astype(np.int8)


CASES = {
    "MatMulInteger": ("y = MatMulInteger (x, w)", "int32", {}),
    "MatMulInteger, zeros": ("y = MatMulInteger (x, w, p, z)", "int32", {"p": np.uint8(3)}),
    "MatMulIntegerToFloat": (
        "y = com.microsoft.MatMulIntegerToFloat (x, w, a, b)",
        "float",
        {"a": np.float32(1), "b": np.float32(1)},
    ),
    "QLinearMatMul": (
        "i = QLinearMatMul (x, a, p, w, b, z, s, o)\ny = DequantizeLinear (i, s, o)",
        "float",
        {"a": np.float32(1), "b": np.float32(1), "p": np.uint8(3), "s": np.float32(8000), "o": np.uint8(0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sums_are_right(name):
    body, kind, more = CASES[name]
    w, z = weight(), np.arange(N, dtype=np.int8)
    zeros = z if "z" in body else np.int8(0)
    weights = {"w": w, **({"z": z} if "z" in body else {}), **more}
    program = parsed(body, f"uint8[batch,length,{K}] x", f"{kind}[batch,length,{N}] y", weights, opset=20)
    exact = (HIGH.astype(np.int64) - int(more.get("p", 0))) @ (w.astype(np.int64) - zeros)
    scale = int(more.get("s", 1))
    if scale > 1:
        exact = np.minimum(np.rint(exact / scale), 255) * scale
    for model in (program, program.with_graph(unsigned(program.graph))):
        np.testing.assert_array_equal(execute(model, [X])[0]["y"], exact)


def test_factors_that_are_computed_become_unsigned_too():
    body = "i = QuantizeLinear (b, s, o)\ny = MatMulInteger (x, i)"
    weights = {"s": np.float32(1), "o": np.int8(0)}
    program = parsed(body, f"uint8[m,{K}] x, float[{K},n] b", "int32[m,n] y", weights, opset=20)
    given = {"x": HIGH[0], "b": np.full((K, 4), 127, np.float32)}
    exact = np.full((5, 4), K * 255 * 127)
    twin = unsigned(program.graph)
    assert [node.op_type for node in twin.graph] == ["QuantizeLinear", "Cast", "Add", "Cast", "MatMulInteger"]
    for model in (program, program.with_graph(twin)):
        np.testing.assert_array_equal(execute(model, [given])[0]["y"], exact)


def test_weights_of_several_products_are_moved_once_and_the_model_stays_as_it_was():
    body = "a = MatMulInteger (x, w)\nb = MatMulInteger (x, w)\ny = Add (a, b)"
    program = parsed(body, f"uint8[m,{K}] x", f"int32[m,{N}] y", {"w": weight()}, opset=20)
    before = program.fingerprint()
    twin = unsigned(program.graph)
    assert [value.dtype.name for name, value in twin.graph.initializers.items() if value.uses()] == [
        "UINT8"
    ] * 2
    assert program.fingerprint() == before


def test_other_models_are_left_alone():
    program = parsed(
        "y = MatMulInteger (x, w)", f"uint8[m,{K}] x", f"int32[m,{N}] y", {"w": weight().view(np.uint8)}
    )
    assert unsigned(program.graph) is program.graph


def test_what_the_processor_does_is_asked_of_the_runtime():
    assert saturating() == detect().saturates


ONE = np.float32(1)
OTHERS = {
    "DynamicQuantizeMatMul": (
        "y = com.microsoft.DynamicQuantizeMatMul (x, w, a)", {"a": ONE}, f"m,{K}", f"m,{N}",
    ),
    "QGemm": (
        "y = com.microsoft.QGemm (x, a, p, w, a, z)",
        {"a": ONE, "p": np.uint8(0), "z": np.int8(0)}, f"m,{K}", f"m,{N}",
    ),
    "ConvInteger": ("y = ConvInteger (x, w)", {}, f"m,{K},n", f"m,{N},n"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_products_have_right_sums(name):
    body, more, inside, outside = OTHERS[name]
    conv, floats = name == "ConvInteger", name == "DynamicQuantizeMatMul"
    w = weight()
    x = np.full((5, K, 3) if conv else (5, K), 255, np.float32 if floats else np.uint8)
    x[0] = 0  # so that a range found at run time begins there
    stored = np.ascontiguousarray(w.T)[..., None] if conv else w
    kinds = ("float" if floats else "uint8"), ("int32" if conv else "float")
    program = parsed(
        body, f"{kinds[0]}[{inside}] x", f"{kinds[1]}[{outside}] y", {"w": stored, **more}, opset=20
    )
    exact = np.einsum("mk...,kn->mn...", x.astype(np.int64), w.astype(np.int64))
    for model in (program, program.with_graph(unsigned(program.graph))):
        np.testing.assert_array_equal(execute(model, [{"x": x}])[0]["y"], exact)

"""The vocabulary against ONNX Runtime: what each ONNX operator is called, and what its row says of it."""

import re

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from graphwright.ir.onnx.graph import OnnxView
from graphwright.ir.onnx.operators import RULES
from graphwright.ir.ops.coupling import groups
from graphwright.ir.ops.evaluate import Unknown, evaluate
from graphwright.ir.ops.table import OPERATORS

RNG = np.random.default_rng(0)
INPUTS = {
    "x": RNG.random((2, 3, 4), np.float32) + 0.1,
    "r": RNG.random((3, 1), np.float32) + 0.1,
    "m": RNG.random((4, 5), np.float32),
    "b": RNG.random(5, np.float32),
    "s": RNG.random(4, np.float32),
    "i": np.array([[1, 0, 2], [2, 2, 1]]),
    "p": RNG.random((2, 3, 4)) > 0.5,
    "q": RNG.random((3, 1)) > 0.5,
    "g": RNG.random((2, 4, 9, 7), np.float32),
    "w": RNG.random((6, 2, 3, 3), np.float32),
    "h": RNG.random((2, 3, 5, 4), np.float32),
    "u": RNG.integers(0, 255, (3, 4), np.uint8),
    "z": RNG.random((2, 1, 4), np.float32),
}
INPUTS |= {"n": INPUTS["x"][0], "v": np.ascontiguousarray(INPUTS["m"].T)}
TYPES = {"float32": "float", "int64": "int64", "bool": "bool", "uint8": "uint8"}
UNARY = (
    "Abs Ceil Cos Erf Exp Floor Gelu Identity IsNaN Log Neg ReduceMean Reciprocal Relu Round Sigmoid Sign "
    "Sin Softplus Sqrt Squeeze Swish Tanh Transpose Trilu"
)
BINARY = "Add Sub Mul Div Pow Equal Less LessOrEqual Greater GreaterOrEqual Max Min Sum"
EXAMPLES = [
    *[f"y = {name}({'z' if name == 'Squeeze' else 'x'})" for name in UNARY.split()],
    *[f"y = {name}(x, r)" for name in BINARY.split()],
    *[f"y = {name}(p, q)" for name in ("And", "Or", "Xor")],
    "y = Not(p)",
    "a = Constant<value_int = 2>() y = Div(i, a)",
    'y = Gelu<approximate = "tanh">(x)',
    "y = Where(p, x, r)",
    "one = Constant<value_float = 0.3>() y = Clip(x, one)",
    "one = Constant<value_float = 0.3>() y = Clip(x, , one)",
    "y = Cast<to = 7>(x)",
    "y = Cast<to = 1>(x)",
    "y = Dropout(x)",
    "a = Constant<value_int = 1>() c = Constant<value_int = 9>() d = Constant<value_int = 3>() "
    "y = Range(a, c, d)",
    "y = MatMul(x, m)",
    "y = Gemm(n, m, b)",
    "y = Gemm<transB = 1>(n, v, b)",
    'y = Einsum<equation = "bij,jk->bik">(x, m)',
    "y = Conv<group = 2, strides = [2, 1], pads = [1, 0, 1, 0], dilations = [1, 2]>(g, w)",
    "y = Attention(h, h, h)",
    *[f"y = {name}<axis = 1>(x)" for name in ("Softmax", "LogSoftmax")],
    "y = LayerNormalization(x, s, s)",
    "y = RMSNormalization(x, s)",
    "y = SimplifiedLayerNormalization(x, s)",
    *[f"a = Constant<value_ints = [-1, 0]>() y = Reduce{n}(x, a)" for n in "Mean Sum Max Min L2".split()],
    "a = Constant<value_ints = [1]>() y = ReduceSum<keepdims = 0>(x, a)",
    "y = ArgMax<axis = 1, keepdims = 0>(x)",
    "y = ArgMax<axis = -1>(x)",
    "a = Constant<value_int = 1>() y = CumSum(x, a)",
    "a = Constant<value_ints = [0, -1]>() y = Reshape(x, a)",
    "y = Flatten<axis = 2>(x)",
    "a = Constant<value_ints = [2, 3, 4]>() y = Expand(r, a)",
    "y = Transpose<perm = [2, 0, 1]>(x)",
    "a = Constant<value_ints = [-1, 0]>() y = Unsqueeze(x, a)",
    "a = Constant<value_ints = [1]>() y = Squeeze(z, a)",
    "y = Shape<start = 1>(x)",
    "d = Shape(x) a = Constant<value_int = 1>() y = Gather(d, a)",
    "a = Constant<value_ints = [1]>() c = Constant<value_ints = [9]>() d = Constant<value_ints = [2]>() "
    "y = Slice(x, a, c, d, d)",
    "a = Constant<value_ints = [1, 3]>() y, t = Split<axis = -1>(x, a)",
    "y, t = Split<axis = 1, num_outputs = 2>(x)",
    "y = Concat<axis = 1>(x, z)",
    "y = Gather<axis = 1>(x, i)",
    "a = Constant<value_int = -1>() y = Gather<axis = 1>(x, a)",
    "t = Constant<value = float[3,2] {1,2,3,4,5,6}>() y = Gather(t, i)",
    "y = GatherElements<axis = 1>(i, i)",
    "a = Constant<value_ints = [2, 3]>() y = ConstantOfShape<value = float[1] {0.5}>(a)",
    "a = Constant<value_ints = [0, 1, 0, 0, 2, 0]>() y = Pad(x, a)",
    "a = Constant<value_ints = [2, 1, 3]>() y = Tile(x, a)",
    "a = Constant<value_int = 1>() y = Trilu<upper = 0>(x, a)",
    "a = Constant<value_float = 0.01>() z8 = Constant<value = uint8 {128}>() y = QuantizeLinear(x, a, z8)",
    "a = Constant<value_float = 0.01>() z8 = Constant<value = uint8 {128}>() y = DequantizeLinear(u, a, z8)",
    "y, t, v = DynamicQuantizeLinear(x)",
    "ut = Transpose(u) y = MatMulInteger(u, ut)",
    *[f"y = com.microsoft.{name}(x)" for name in ("Gelu", "FastGelu", "QuickGelu")],
    *[f"y = com.microsoft.{name}(x, s)" for name in ("BiasGelu", "FastGelu")],
    "y = com.microsoft.QuickGelu<alpha = 1.0>(x)",
]


def run(body):
    """A view, and what ONNX Runtime computes; nothing in the file says what the results' shapes are."""
    used = [name for name in INPUTS if re.search(rf"[(, ]{name}[,)]", body)]
    given = ", ".join(
        f"{TYPES[INPUTS[name].dtype.name]}[{','.join(map(str, INPUTS[name].shape))}] {name}" for name in used
    )
    results = re.findall(r"(\w+(?:, \w+)*) = (?:com\.microsoft\.)?[A-Z]", body)[-1]
    opset = 24 if "Swish" in body else 23
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header} main ({given}) => ({results}) {{ {body} }}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return OnnxView(onnx_ir.from_proto(proto)), session.run(None, {name: INPUTS[name] for name in used})


def test_every_rule_has_an_example():
    assert RULES.keys() == {name for body in EXAMPLES for name in re.findall(r"= (\w+)[(<]", body)} - {
        "Constant"
    }


@pytest.mark.parametrize("body", EXAMPLES)
def test_a_row_says_what_onnx_runtime_does(body):
    seen, expected = run(body)
    known = {value: INPUTS[value.name] for value in seen.inputs}
    assert {value.op for value in seen} <= OPERATORS.keys()
    for value, array in zip(seen.outputs, expected, strict=True):
        row = OPERATORS[value.op]
        told = value.index == 0 or value.op == "split"
        assert value.shape in (array.shape, (None,)) or (value.shape is None and not (row.shape and told))
        assert value.dtype in (None, array.dtype.name)
        if row.compute is None:
            with pytest.raises(Unknown):
                evaluate(value, known)
        else:
            computed = evaluate(value, known)
            assert computed.shape == array.shape
            np.testing.assert_allclose(computed, array, rtol=2e-6, atol=1e-6)
    groups(seen)

"""Products of small integers with right sums on every processor.

x86 without VNNI multiplies unsigned by signed integers of 8 bits with VPMADDUBSW, which adds two products in
16 bits and saturates; ONNX Runtime's kernels for two unsigned factors widen them first. So signed second
factors become unsigned ones: 128 more, and so is their zero point. The products are the same integers. (ONNX
Runtime's own `session.x64quantprecision` does so too, in optimised graphs alone.)
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir

from .graph import Editor, clone
from .lazy import changed

# Where the second factor and its zero point stand (ONNX and com.microsoft).
_FACTORS = {
    "ConvInteger": (1, 3),
    "DynamicQuantizeMatMul": (1, 3),
    "MatMulInteger": (1, 3),
    "MatMulIntegerToFloat": (1, 5),
    "QAttention": (1, 7),
    "QGemm": (3, 5),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
}


def exact(model: ir.Model) -> ir.Model:
    """The model, or where this processor's sums of signed products saturate, one whose sums do not."""
    return unsigned(model) if saturating() else model


@cache
def saturating() -> bool:
    """Whether a product of unsigned by signed integers saturates here: asked of ONNX Runtime."""
    import onnxruntime

    k = 64
    graph = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"g (uint8[m,{k}] a, int8[{k},n] b) => (int32[m,n] y) {{ y = MatMulInteger (a, b) }}"
    )
    session = onnxruntime.InferenceSession(
        ir.serde.serialize_model(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = {"a": np.full((8, k), 255, np.uint8), "b": np.full((k, 16), 127, np.int8)}
    return bool((session.run(None, given)[0] != k * 255 * 127).any())


def unsigned(model: ir.Model) -> ir.Model:
    """A clone in which no product's second factor is signed, or the model itself if none is."""
    if not any(_signed_factor(node) for graph in model.graphs() for node in graph):
        return model
    twin = clone(model)
    moves = _Moves(Editor(twin))
    for node in [node for graph in twin.graphs() for node in graph if _signed_factor(node)]:
        factor, zero = _FACTORS[node.op_type]
        node.resize_inputs(max(zero + 1, len(node.inputs)))
        for at in (factor, zero):
            node.replace_input_with(at, moves.of(node.inputs[at], node))
    return twin


def _signed_factor(node: ir.Node) -> bool:
    factor, _ = _FACTORS.get(node.op_type, (0, 0))
    return bool(factor) and _signed(node.inputs[factor])


def _signed(value: ir.Value | None) -> bool:
    """Whether a value is of int8, as far as the graph tells: QuantizeLinear gives its zero point's type."""
    if value is None:
        return False
    node = value.producer()
    if value.dtype is None and node is not None and node.op_type == "QuantizeLinear":
        return len(node.inputs) > 2 and _signed(node.inputs[2])
    tensor = ir.convenience.get_const_tensor(value)
    return (value.dtype if tensor is None else tensor.dtype) == ir.DataType.INT8


class _Moves:
    """Values of int8 as such of uint8; constants once."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._constants: dict[ir.Value | None, ir.Value] = {}
        self._more = editor.initializer(np.array(128, np.int32), "unsigned.more")

    def of(self, value: ir.Value | None, user: ir.Node) -> ir.Value:
        """128 more than a value; 128 for a zero point that isn't given."""
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        if value is not None and tensor is None:
            return self._computed(value, user)
        if value not in self._constants:
            new = np.array(128, np.uint8) if tensor is None else _moved(tensor)
            self._constants[value] = self._editor.initializer(new, "unsigned")
        return self._constants[value]

    def _computed(self, value: ir.Value, user: ir.Node) -> ir.Value:
        graph = user.graph
        assert graph is not None
        steps: list[tuple[str, list[ir.Value], dict[str, ir.DataType]]] = [
            ("Cast", [], {"to": ir.DataType.INT32}),
            ("Add", [self._more], {}),
            ("Cast", [], {"to": ir.DataType.UINT8}),
        ]
        for op_type, more, attrs in steps:
            node = ir.node(op_type, [value, *more], attrs, name=self._editor.name("unsigned"))
            value = node.outputs[0]
            value.name = node.name
            graph.insert_before(user, node)
        return value


def _moved(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def more(array: np.ndarray) -> np.ndarray:
        return np.bitwise_xor(np.ascontiguousarray(array).view(np.uint8), np.uint8(128))

    return changed(tensor, more, ir.DataType.UINT8)

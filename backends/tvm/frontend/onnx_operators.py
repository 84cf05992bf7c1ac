"""ONNX operators to Relax, where TVM 0.27's importer has none, gets them wrong, or hides what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tvm import relax

from . import onnx_attention, onnx_fourier, onnx_integers, onnx_nbits, onnx_rotary
from .einsum import as_product
from .node import Converter, Node
from .rewriter import array, shape

_MICROSOFT = "com.microsoft."


def _gather(node: Node) -> Any:
    """TVM's adds the number of rows to negative indices: the ids that a model is given are never negative."""
    table, indices = node.inputs[:2]
    if not node.is_input(indices):
        return None
    return relax.op.take(table, indices, axis=int(node.attrs.get("axis", 0)))


def _shape(node: Node) -> Any:
    """TVM's is no tensor."""
    sizes = shape(node.inputs[0])
    start, end = node.attrs.get("start", 0), node.attrs.get("end", len(sizes))
    return relax.const(np.array(sizes[start:end]), "int64")


def _concat(node: Node) -> Any:
    """TVM's cannot tell the size beside a tensor of none, such as a cache before its first token."""
    full = [value for value in node.inputs if 0 not in shape(value)]
    if len(full) == len(node.inputs) or not full:
        return None
    return full[0] if len(full) == 1 else relax.op.concat(full, axis=int(node.attrs["axis"]))


def _constant(node: Node) -> Any:
    """TVM's knows tensors only."""
    for name, dtype in (("float", "float32"), ("int", "int64")):
        for key in (f"value_{name}", f"value_{name}s"):
            if key in node.attrs:
                return relax.const(np.array(node.attrs[key]), dtype)
    return None


def _einsum(node: Node) -> Any:
    """TVM's is a loop nest of its own, in which nobody finds a matrix product."""
    if len(node.inputs) != 2:
        return None
    return as_product(node.emit, node.attrs["equation"].decode(), *node.inputs)


def _gelu(node: Node) -> Any:
    return relax.op.nn.gelu(node.sum(node.inputs[:2]))


def _fast_gelu(node: Node) -> Any:
    return relax.op.nn.gelu_tanh(node.sum(node.inputs[:2]))


def _quick_gelu(node: Node) -> Any:
    """x sigmoid(alpha x)"""
    x = node.inputs[0]
    factor = node.like(node.number("alpha", 1.702), x)
    return relax.op.multiply(x, node.emit(relax.op.sigmoid(node.emit(relax.op.multiply(x, factor)))))


def _skip_layer_norm(node: Node) -> Any:
    """LayerNormalization(x + skip + bias); its fourth result is the sum."""
    x, skip, weight, bias, more = node.operands(5)
    total = node.sum([x, skip, more])
    normed = node.emit(_layer_norm(node, total, weight, bias))
    return relax.Tuple([normed, *node.unused(2), total])


def _skip_rms_norm(node: Node) -> Any:
    x, skip, weight, more = node.operands(4)
    total = node.sum([x, skip, more])
    normed = node.emit(relax.op.nn.rms_norm(total, weight, -1, node.number("epsilon", 1e-5)))
    return relax.Tuple([normed, *node.unused(2), total])


def _rms_norm(node: Node) -> Any:
    """ONNX Runtime's name, in the standard domain, for RMSNormalization over the last axis."""
    return relax.op.nn.rms_norm(node.inputs[0], node.inputs[1], -1, node.number("epsilon", 1e-5))


def _embed_layer_norm(node: Node) -> Any:
    """LayerNormalization of the sum of word, position and type rows; positions count where none are given."""
    ids, types, words, places, kinds, weight, bias, _mask, positions = node.operands(9)
    rows = [relax.op.take(words, ids, axis=0)]
    if positions is None:
        positions = relax.const(np.arange(shape(ids)[1]), "int64")
    rows.append(relax.op.take(places, positions, axis=0))
    if types is not None:
        rows.append(relax.op.take(kinds, types, axis=0))
    total = node.sum([node.emit(row) for row in rows])
    normed = node.emit(_layer_norm(node, total, weight, bias, 1e-12))
    return relax.Tuple([normed, *node.unused(1), total])


def _layer_norm(node: Node, x: Any, weight: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    if bias is None:
        bias = relax.const(np.zeros(shape(weight)), str(x.ty.dtype))
    return relax.op.nn.layer_norm(x, weight, bias, -1, node.number("epsilon", epsilon))


def _power(node: Node) -> Any:
    """TVM's wants both sides of one type; the result has the base's."""
    base, exponent = node.inputs
    if exponent.ty.dtype == base.ty.dtype:
        return None
    return relax.op.power(base, node.emit(relax.op.astype(exponent, str(base.ty.dtype))))


def _one_hot(node: Node) -> Any:
    """Negative indices count from the end, others outside give no hot one (OneHot-11). TVM's is float64."""
    indices, depth, values = node.inputs
    count, held = array(depth), array(values)
    if count is None or held is None:
        raise node.unfit("a depth or values that are computed")
    rank, axis, size = len(shape(indices)), int(node.attrs.get("axis", -1)), int(count.reshape(()))
    at = axis if axis >= 0 else axis + rank + 1
    places = np.arange(size).reshape([size if i == at else 1 for i in range(rank + 1)])
    wide = node.emit(relax.op.expand_dims(node.emit(relax.op.astype(indices, "int64")), at))
    counted = node.emit(relax.op.add(wide, relax.const(size, "int64")))
    negative = node.emit(relax.op.less(wide, relax.const(0, "int64")))
    hot = node.emit(relax.op.where(negative, counted, wide))
    chosen = node.emit(relax.op.equal(hot, relax.const(places, "int64")))
    off, on = (relax.const(number, str(values.ty.dtype)) for number in held)
    return relax.op.where(chosen, on, off)


def _cast(node: Node) -> Any:
    """TVM's gives 4-bit integers as bytes, without their bounds."""
    if int(node.attrs["to"]) in (TensorProto.INT4, TensorProto.UINT4):
        raise node.unfit("4-bit integers as its result")
    return None


def _equal(node: Node) -> Any:
    """LLVM is given a comparison of floats for TVM's of booleans, and refuses the module."""
    first, second = node.inputs
    if str(first.ty.dtype) != "bool":
        return None
    return relax.op.logical_not(node.emit(relax.op.logical_xor(first, second)))


def _pairwise(operator: Any) -> Converter:
    """TVM's stack their operands and reduce the stack, which nobody recognises as a sum."""

    def converter(node: Node) -> Any:
        first, *rest = node.inputs
        for value in rest:
            first = node.emit(operator(first, value))
        return first

    return converter


_STANDARD: dict[str, Converter] = {
    "Attention": onnx_attention.attention,
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "DFT": onnx_fourier.dft,
    "DynamicQuantizeLinear": onnx_integers.dynamic_quantize_linear,
    "Einsum": _einsum,
    "Equal": _equal,
    "Gather": _gather,
    "MatMulInteger": onnx_integers.matmul_integer,
    "Max": _pairwise(relax.op.maximum),
    "Min": _pairwise(relax.op.minimum),
    "OneHot": _one_hot,
    "Pow": _power,
    "QLinearMatMul": onnx_integers.qlinear_matmul,
    "RotaryEmbedding": onnx_rotary.rotary_embedding,
    "Shape": _shape,
    "SimplifiedLayerNormalization": _rms_norm,
    "Sum": _pairwise(relax.op.add),
}
_CONTRIB: dict[str, Converter] = {
    "Attention": onnx_attention.contrib_attention,
    "BiasGelu": _gelu,
    "EmbedLayerNormalization": _embed_layer_norm,
    "FastGelu": _fast_gelu,
    "GatherBlockQuantized": onnx_nbits.gather_block_quantized,
    "Gelu": _gelu,
    "MatMulIntegerToFloat": onnx_integers.matmul_integer_to_float,
    "MatMulNBits": onnx_nbits.matmul_nbits,
    "MultiHeadAttention": onnx_attention.multi_head_attention,
    "QAttention": onnx_attention.quantized_attention,
    "QuickGelu": _quick_gelu,
    "RotaryEmbedding": onnx_rotary.contrib_rotary_embedding,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
CONVERTERS = {**_STANDARD, **{_MICROSOFT + name: converter for name, converter in _CONTRIB.items()}}
"""By operator name, with its domain before it unless that is the standard one."""

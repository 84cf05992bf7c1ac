"""Norms, activations, products and embeddings of ONNX Runtime, written out in ONNX's own operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .contrib_attention import RULES as ATTENTIONS
from .written_out import Result, Rule, Written, write_out

_EPSILON = 1e-12  # the kernels' default


def write_out_contrib(model: ir.Model) -> int:
    """Writes ONNX Runtime's fused operators out, in place; returns how many there were.

    The model must be of opset 20: Gelu is ONNX's from there on.
    """
    return write_out(model, RULES)


def _sum(write: Written, *terms: ir.Value | None) -> ir.Value:
    first, *others = [term for term in terms if term is not None]
    for other in others:
        first = write("Add", first, other)
    return first


def _skip_layer_norm(write: Written) -> Result:
    x, skip, gamma, beta, bias = (write.input(i) for i in range(5))
    if write.used(1) or write.used(2):
        return None
    total = _sum(write, x, bias, skip)
    normed = write("LayerNormalization", total, gamma, beta, axis=-1, epsilon=write.attr("epsilon", _EPSILON))
    return normed, None, None, total


def _skip_rms_norm(write: Written) -> Result:
    x, skip, gamma, bias = (write.input(i) for i in range(4))
    if write.used(1) or write.used(2):
        return None
    total = _sum(write, x, bias, skip)
    return _root_mean_square(write, total, gamma, write.attr("epsilon", _EPSILON)), None, None, total


def _rms_norm(write: Written) -> Result:
    if write.attr("axis", -1) != -1 or write.used(1):
        return None
    return (_root_mean_square(write, write.needed(0), write.input(1), write.attr("epsilon", 1e-5)),)


def _root_mean_square(write: Written, x: ir.Value, gamma: ir.Value | None, epsilon: float) -> ir.Value:
    """x / sqrt(mean(x^2) + epsilon) gamma, in single precision, as the kernel of a half does."""
    half = x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    wide = write("Cast", x, to=int(ir.DataType.FLOAT)) if half else x
    square = write("Mul", wide, wide)
    mean = write("ReduceMean", square, write.const([-1]), keepdims=1)
    root = write("Sqrt", write("Add", mean, write.like(epsilon, wide)))
    normed = write("Div", wide, root)
    if half:
        normed = write("Cast", normed, to=int(x.dtype or ir.DataType.FLOAT))
    return normed if gamma is None else write("Mul", normed, gamma)


def _embed_layer_norm(write: Written) -> Result:
    ids, segments, words, positions, types, gamma, beta, mask, places = (write.input(i) for i in range(9))
    found = [write("Gather", words, ids, axis=0)]
    if places is None:
        length = write("Squeeze", write("Shape", ids, start=1, end=2), write.const([0]))
        places = write("Range", write.const(0), length, write.const(1))
        found.append(write("Gather", positions, write("Unsqueeze", places, write.const([0])), axis=0))
    else:
        found.append(write("Gather", positions, places, axis=0))
    if segments is not None and types is not None:
        found.append(write("Gather", types, segments, axis=0))
    total = _sum(write, *found)
    normed = write("LayerNormalization", total, gamma, beta, axis=-1, epsilon=write.attr("epsilon", _EPSILON))
    return normed, _counted(write, ids, mask) if write.used(1) else None, total


def _counted(write: Written, ids: ir.Value | None, mask: ir.Value | None) -> ir.Value:
    """How many tokens each row keeps, int32; zeros without a mask."""
    if mask is None:
        counted = write("Mul", ids, write.const(0, np.int32))
    else:
        kept = write("Equal", mask, write.const(1, np.int32))
        counted = write("Cast", kept, to=int(ir.DataType.INT32))
    result = write("ReduceSum", counted, write.const([1]), keepdims=0)
    result.shape, result.dtype = ir.Shape([None]), ir.DataType.INT32
    return result


def _gelu(approximate: str, biased: bool) -> Rule:
    def rule(write: Written) -> Result:
        x = _sum(write, write.input(0), write.input(1) if biased else None)
        return (write("Gelu", x, approximate=approximate),)

    return rule


def _quick_gelu(write: Written) -> Result:
    x = write.needed(0)
    scaled = write("Mul", x, write.like(write.attr("alpha", 1.702), x))
    return (write("Mul", x, write("Sigmoid", scaled)),)


def _fused_matmul(write: Written) -> Result:
    a, b = write.needed(0), write.needed(1)
    if write.attr("transBatchA", 0) or write.attr("transBatchB", 0):
        return None
    sides = []
    for side, name in ((a, "transA"), (b, "transB")):
        if write.attr(name, 0):
            rank = write.rank(side)
            if rank is None or rank < 2:
                return None
            *batch, row, column = range(rank)
            side = write("Transpose", side, perm=[*batch, column, row])
        sides.append(side)
    product, alpha = write("MatMul", *sides), write.attr("alpha", 1.0)
    return (product if alpha == 1 else write("Mul", product, write.like(alpha, a)),)


_ACTIVATIONS = {"Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Softsign"}
_PARAMETERS = {"LeakyRelu": ("alpha",), "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


def _fused_gemm(write: Written) -> Result:
    named = ("alpha", "beta", "transA", "transB")
    attrs = {name: write.attr(name, None) for name in named if write.attr(name, None) is not None}
    product = write("Gemm", write.input(0), write.input(1), write.input(2), **attrs)
    kind = write.attr("activation", "")
    if kind not in _ACTIVATIONS:
        return None if kind else (product,)
    asked = {name: write.attr(f"activation_{name}", None) for name in _PARAMETERS.get(kind, ())}
    return (write(kind, product, **{k: v for k, v in asked.items() if v is not None}),)


def _fused_conv(write: Written) -> Result:
    named = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    attrs = {name: write.attr(name, None) for name in named if write.attr(name, None) is not None}
    result = write("Conv", write.input(0), write.input(1), write.input(2), **attrs)
    result = _sum(write, result, write.input(3))
    kind, numbers = write.attr("activation", ""), write.attr("activation_params", ())
    if kind not in _ACTIVATIONS:
        return None if kind else (result,)
    asked = dict(zip(_PARAMETERS.get(kind, ()), numbers, strict=False))
    return (write(kind, result, **asked),)


def _cast_like(write: Written) -> Result:
    """What functions hold where they work for several types: known once they are written out."""
    dtype = write.dtype(write.needed(1))
    return None if dtype is None else (write("Cast", write.input(0), to=int(dtype)),)


RULES: Mapping[str, Rule] = {
    "CastLike": _cast_like,
    "SimplifiedLayerNormalization": _rms_norm,
    "com.microsoft::SimplifiedLayerNormalization": _rms_norm,
    "com.microsoft::SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "com.microsoft::EmbedLayerNormalization": _embed_layer_norm,
    "com.microsoft::Gelu": _gelu("none", biased=False),
    "com.microsoft::BiasGelu": _gelu("none", biased=True),
    "com.microsoft::FastGelu": _gelu("tanh", biased=True),
    "com.microsoft::QuickGelu": _quick_gelu,
    "com.microsoft::FusedMatMul": _fused_matmul,
    "com.microsoft::TransposeMatMul": _fused_matmul,
    "com.microsoft::FusedGemm": _fused_gemm,
    "com.microsoft::FusedConv": _fused_conv,
    **ATTENTIONS,
}

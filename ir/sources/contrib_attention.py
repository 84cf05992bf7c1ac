"""Attentions of ONNX Runtime, and ONNX's own over three axes, as products and a softmax over four.

A key that a mask hides keeps its score, and gets `mask_filter_value` (-10000) added: a row without keys is
the softmax of its raw scores, as in the CPU kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .written_out import Result, Rule, Written

_FLOAT = int(ir.DataType.FLOAT)


def _attention(write: Written) -> Result:
    """com.microsoft Attention: q, k and v projected by one weight."""
    x, weight, bias, mask = (write.input(i) for i in range(4))
    past, more = write.input(4), write.input(5)
    if past is not None or write.used(1) or write.attr("do_rotary", 0) or weight is None or x is None:
        return None
    width = _width(weight)
    if width is None:
        return None
    product = write("MatMul", x, weight)
    if bias is not None:
        product = write("Add", product, bias)
    widths = list(write.attr("qkv_hidden_sizes", ())) or [width // 3] * 3
    sides = write.all("Split", product, write.const(widths), results=3, axis=-1)
    heads = write.attr("num_heads", 0)
    hidden = _hidden(write, mask, x)
    if mask is not None and hidden is None:
        return None
    return (_context(write, sides, heads, widths[0] // heads, [hidden, more]),)


def _multi_head(write: Written) -> Result:
    """com.microsoft MultiHeadAttention of separate q, k and v, without a cache."""
    query, key, value, bias, padding, more = (write.input(i) for i in range(6))
    if query is None or key is None or value is None or any(write.input(i) for i in range(6, 10)):
        return None
    if write.used(1) or write.used(2) or write.used(3):
        return None
    width = _width(query) or (_width(bias) or 0) // 3
    if not width or any(write.rank(side) not in (None, 3) for side in (query, key, value)):
        return None
    sides: list[ir.Value] = [query, key, value]
    if bias is not None:
        total = _width(bias)
        if total is None:
            return None
        parts = write.all("Split", bias, write.const([width, width, total - 2 * width]), results=3, axis=0)
        sides = [write("Add", side, part) for side, part in zip(sides, parts, strict=True)]
    heads = write.attr("num_heads", 0)
    hidden = _hidden(write, padding, key)
    if padding is not None and hidden is None:
        return None
    return (_context(write, sides, heads, width // heads, [hidden, more]),)


def _context(
    write: Written, sides: Sequence[ir.Value], heads: int, size: int, masks: Sequence[ir.Value | None]
) -> ir.Value:
    """softmax(q k^T scale + masks) v of (batch, length, heads * size), laid out the same way."""
    query, key, value = (_split(write, side, heads) for side in sides)
    scale = write.attr("scale", 0.0) or size**-0.5
    scores = write("MatMul", query, write("Transpose", key, perm=[0, 1, 3, 2]))
    scores = write("Mul", scores, write.like(scale, sides[0]))
    if write.attr("unidirectional", 0):
        masks = [*masks, _causal(write, scores, sides[0])]
    for mask in masks:
        if mask is not None:
            scores = write("Add", scores, mask)
    context = write("MatMul", write("Softmax", scores, axis=-1), value)
    turned = write("Transpose", context, perm=[0, 2, 1, 3])
    return write("Reshape", turned, write.const([0, 0, -1]))


def _split(write: Written, side: ir.Value, heads: int) -> ir.Value:
    """(batch, length, heads * size) -> (batch, heads, length, size)."""
    return write("Transpose", write("Reshape", side, write.const([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _hidden(write: Written, mask: ir.Value | None, like: ir.Value) -> ir.Value | None:
    """What is added to the scores of hidden keys, (batch, 1, 1 or queries, keys); None where the mask is not
    one of lengths (batch), or of ones and zeros (batch, [queries,] keys)."""
    rank = write.rank(mask)
    if mask is None or rank not in (1, 2, 3):
        return None
    if rank == 1:
        if mask.shape is not None and isinstance(mask.shape[0], int) and mask.shape[0] != 1:
            return None  # may be ends and starts
        length = write("Squeeze", write("Shape", like, start=1, end=2), write.const([0]))
        place = write("Range", write.const(0), length, write.const(1))
        ends = write("Cast", write("Unsqueeze", mask, write.const([1])), to=int(ir.DataType.INT64))
        mask = write("Cast", write("Less", place, ends), to=int(ir.DataType.INT32))
        axes = [1, 2]
    else:
        axes = [1, 2] if rank == 2 else [1]
    dtype = int(like.dtype or _FLOAT)
    floats = write("Cast", write("Unsqueeze", mask, write.const(axes)), to=dtype)
    value = write.attr("mask_filter_value", -10000.0)
    return write("Mul", write("Sub", write.like(1.0, like), floats), write.like(value, like))


def _causal(write: Written, scores: ir.Value, like: ir.Value) -> ir.Value:
    """The smallest number above the diagonal."""
    shape = write("Shape", scores, start=2, end=4)
    lowest = np.finfo(np.float16 if like.dtype == ir.DataType.FLOAT16 else np.float32).min
    dtype = like.dtype.numpy() if like.dtype is not None else np.float32
    whole = write("ConstantOfShape", shape, value=ir.Tensor(np.asarray([lowest], dtype)))
    return write("Trilu", whole, write.const(1), upper=1)


def _flat_attention(write: Written) -> Result:
    """Attention of opset 23 over (batch, length, heads * size), as the one over four axes."""
    heads, groups = write.attr("q_num_heads", 0), write.attr("kv_num_heads", 0)
    if not heads or not groups or any(write.input(i) for i in range(4, 7)) or len(write.node.outputs) > 1:
        return None
    query, key, value = (
        _split(write, write.needed(i), count) for i, count in enumerate((heads, groups, groups))
    )
    kept = ("is_causal", "scale", "softcap", "softmax_precision")
    attrs = {name: write.attr(name, None) for name in kept if write.attr(name, None) is not None}
    context = write("Attention", query, key, value, write.input(3), **attrs)
    turned = write("Transpose", context, perm=[0, 2, 1, 3])
    return (write("Reshape", turned, write.const([0, 0, -1])),)


def _width(value: ir.Value | None) -> int | None:
    size = value.shape[-1] if value is not None and value.shape else None
    return size if isinstance(size, int) else None


RULES: Mapping[str, Rule] = {
    "com.microsoft::Attention": _attention,
    "com.microsoft::MultiHeadAttention": _multi_head,
    "Attention": _flat_attention,
}

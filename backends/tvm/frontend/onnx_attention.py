"""Fused attentions of ONNX as products, a softmax and layout changes in Relax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from .node import Node
from .onnx_integers import rescaled_product
from .rewriter import array, shape

_HIDDEN = -10000.0  # what com.microsoft Attention adds to the score of a hidden key


def attention(node: Node) -> Any:
    """Attention of opset 23, without cache: (batch, length, heads * size), or with heads on an axis.

    A row whose keys are all hidden gives zero.
    """
    query, key, value, mask = node.operands(4)
    if node.attrs.get("qk_matmul_output_mode"):
        raise node.unfit(f"qk_matmul_output_mode={node.attrs['qk_matmul_output_mode']}")
    flat = len(shape(query)) == 3
    if flat:
        heads, groups = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])
        query, key, value = (
            split_heads(node, x, n) for x, n in ((query, heads), (key, groups), (value, groups))
        )
    repeats = shape(query)[1] // shape(key)[1]
    if repeats > 1:
        key, value = (_repeated(node, x, repeats) for x in (key, value))
    masks = [_additive(node, mask, query), _causal(query, key) if node.attrs.get("is_causal") else None]
    context = _attend(node, (query, key, value), masks, zeroing=True)
    return merge_heads(node, context) if flat else context


def multi_head_attention(node: Node) -> Any:
    """com.microsoft MultiHeadAttention of three inputs, without cache or key padding mask."""
    query, key, value, bias, padding, more = node.operands(6)
    if key is None or value is None or padding is not None or len(shape(key)) != 3:
        raise node.unfit("packed or cached keys, or a key padding mask")
    sides = [query, key, value]
    if bias is not None:
        parts = _parts(node, bias, [shape(side)[-1] for side in sides])
        sides = [node.emit(relax.op.add(side, part)) for side, part in zip(sides, parts, strict=True)]
    return _of_heads(node, sides, more)


def contrib_attention(node: Node) -> Any:
    """com.microsoft Attention: q, k and v projected by one weight, a mask of (batch, [queries,] keys)."""
    x, weight, bias, mask, past, more = node.operands(6)
    if past is not None:
        raise node.unfit("a cache")
    return _projected(node, node.sum([node.emit(relax.op.matmul(x, weight)), bias]), mask, more)


def quantized_attention(node: Node) -> Any:
    """com.microsoft QAttention: the same with an int8 projection."""
    x, weight, bias, x_scale, w_scale, mask, x_zero, w_zero = node.operands(8)
    product = rescaled_product(node, (x, x_scale, x_zero), (weight, w_scale, w_zero))
    return _projected(node, node.sum([product, bias]), mask, None)


def _projected(node: Node, qkv: Any, mask: Any, more: Any) -> Any:
    width = shape(qkv)[-1]
    widths = [int(size) for size in node.attrs.get("qkv_hidden_sizes", (width // 3,) * 3)]
    return _of_heads(node, _parts(node, qkv, widths), node.sum([_kept(node, mask), more]))


def _parts(node: Node, whole: Any, widths: Sequence[int]) -> list[Any]:
    """What lies side by side on the last axis."""
    cuts = [int(end) for end in np.cumsum(widths)[:-1]]
    pieces = node.emit(relax.op.split(whole, cuts, axis=-1))
    return [node.emit(relax.TupleGetItem(pieces, index)) for index in range(len(widths))]


def _of_heads(node: Node, sides: Sequence[Any], mask: Any) -> Any:
    heads = int(node.attrs["num_heads"])
    query, key, value = (split_heads(node, side, heads) for side in sides)
    masks = [mask, _causal(query, key) if node.attrs.get("unidirectional") else None]
    return merge_heads(node, _attend(node, (query, key, value), masks))


def _kept(node: Node, mask: Any) -> Any:
    """What a mask of ones and zeros adds to scores, (batch, 1, 1 or queries, keys)."""
    if mask is None:
        return None
    if len(shape(mask)) not in (2, 3):
        raise node.unfit("a mask of lengths")
    floats = node.emit(relax.op.astype(mask, "float32"))
    hides = node.emit(relax.op.subtract(relax.const(1.0, "float32"), floats))
    value = relax.const(node.number("mask_filter_value", _HIDDEN), "float32")
    added = node.emit(relax.op.multiply(hides, value))
    return node.emit(relax.op.expand_dims(added, [1, 2] if len(shape(mask)) == 2 else [1]))


def split_heads(node: Node, x: Any, heads: int) -> Any:
    """(batch, length, heads * size) -> (batch, heads, length, size)."""
    batch, length, width = shape(x)
    apart = node.emit(relax.op.reshape(x, (batch, length, heads, width // heads)))
    return node.emit(relax.op.permute_dims(apart, [0, 2, 1, 3]))


def merge_heads(node: Node, x: Any) -> Any:
    """(batch, heads, length, size) -> (batch, length, heads * size)."""
    batch, heads, length, size = shape(x)
    turned = node.emit(relax.op.permute_dims(x, [0, 2, 1, 3]))
    return node.emit(relax.op.reshape(turned, (batch, length, heads * size)))


def _repeated(node: Node, x: Any, times: int) -> Any:
    """Every head as often as queries share it."""
    batch, heads, length, size = shape(x)
    apart = node.emit(relax.op.expand_dims(x, 2))
    wide = node.emit(relax.op.broadcast_to(apart, (batch, heads, times, length, size)))
    return node.emit(relax.op.reshape(wide, (batch, heads * times, length, size)))


def _attend(node: Node, sides: Sequence[Any], masks: Sequence[Any], zeroing: bool = False) -> Any:
    """softmax(capped(q k^T scale) + masks) v over (batch, heads, length, size).

    Args:
        zeroing: rows whose keys are all hidden, NaN in softmax, become 0.
    """
    query, key, value = sides
    scale = node.number("scale", 0) or shape(query)[-1] ** -0.5
    scores = node.emit(relax.op.matmul(query, node.emit(relax.op.permute_dims(key, [0, 1, 3, 2]))))
    scores = node.emit(relax.op.multiply(scores, node.like(scale, scores)))
    cap = node.number("softcap", 0)
    if cap:
        part = node.emit(relax.op.tanh(node.emit(relax.op.multiply(scores, node.like(1 / cap, scores)))))
        scores = node.emit(relax.op.multiply(part, node.like(cap, scores)))
    scores = node.sum([scores, *masks])
    weights = node.emit(relax.op.nn.softmax(scores, -1))
    if zeroing and any(mask is not None and array(mask) is None for mask in masks):
        hidden = node.emit(relax.op.isnan(weights))
        weights = node.emit(relax.op.where(hidden, node.like(0.0, weights), weights))
    return node.emit(relax.op.matmul(weights, value))


def _additive(node: Node, mask: Any, query: Any) -> Any:
    """A mask as a term. The smallest float hides as -inf does: ONNX Runtime gives zero for a row of it."""
    if mask is None:
        return None
    never = node.like(-np.inf, query)
    if str(mask.ty.dtype) == "bool":
        return node.emit(relax.op.where(mask, node.like(0.0, query), never))
    lowest = node.like(float(np.finfo(str(mask.ty.dtype)).min), mask)
    return node.emit(relax.op.where(relax.op.less_equal(mask, lowest), never, mask))


def _causal(query: Any, key: Any) -> Any:
    """(queries, keys): 0 on and below the diagonal, -inf above."""
    allowed = np.tri(shape(query)[-2], shape(key)[-2], dtype=bool)
    return relax.const(np.where(allowed, 0.0, -np.inf), str(query.ty.dtype))

"""Rotary position embeddings of ONNX (Su et al., 2021, arXiv:2104.09864) in Relax."""

from __future__ import annotations

from typing import Any

from tvm import relax

from .node import Node
from .onnx_attention import merge_heads, split_heads
from .rewriter import shape


def rotary_embedding(node: Node) -> Any:
    """RotaryEmbedding of opset 23."""
    x, cosine, sine, positions = node.operands(4)
    return _rotated(node, x, cosine, sine, positions)


def contrib_rotary_embedding(node: Node) -> Any:
    """com.microsoft RotaryEmbedding, whose positions come second."""
    x, positions, cosine, sine = node.operands(4)
    if len(shape(positions)) != 2 or node.attrs.get("is_packed_batching"):
        raise node.unfit("an offset in place of positions")
    return _rotated(node, x, cosine, sine, positions)


def _rotated(node: Node, x: Any, cosine: Any, sine: Any, positions: Any) -> Any:
    """The first features of every head turned in pairs, by halves or interleaved; the rest as they are.

    Args:
        x: (batch, length, heads * size) or (batch, heads, length, size).
        cosine, sine: (batch, length, width / 2), or (rows, width / 2) that positions choose from.
    """
    flat = len(shape(x)) == 3
    width = int(node.attrs.get("rotary_embedding_dim", 0))
    if flat:
        heads = int(node.attrs.get("num_heads", 0)) or shape(x)[-1] // (2 * shape(cosine)[-1])
        x = split_heads(node, x, heads)
    size = shape(x)[-1]
    width = width or size
    if positions is not None:
        cosine, sine = (node.emit(relax.op.take(cache, positions, axis=0)) for cache in (cosine, sine))
    cosine, sine = (node.emit(relax.op.expand_dims(cache, 1)) for cache in (cosine, sine))
    step = 2 if node.attrs.get("interleaved") else 1
    ends = ((0, width), (1, width)) if step == 2 else ((0, width // 2), (width // 2, width))
    first, second = (_cut(node, x, start, end, step) for start, end in ends)
    real = relax.op.subtract(_times(node, first, cosine), _times(node, second, sine))
    imaginary = relax.op.add(_times(node, first, sine), _times(node, second, cosine))
    turned = [node.emit(real), node.emit(imaginary)]
    if step == 2:
        whole = node.emit(relax.op.stack(turned, axis=-1))
        turned = [node.emit(relax.op.reshape(whole, (*shape(x)[:-1], width)))]
    if width < size:
        turned.append(_cut(node, x, width, size, 1))
    result = node.emit(relax.op.concat(turned, axis=-1)) if len(turned) > 1 else turned[0]
    return merge_heads(node, result) if flat else result


def _cut(node: Node, x: Any, start: int, end: int, step: int) -> Any:
    return node.emit(relax.op.strided_slice(x, [3], [start], [end], [step]))


def _times(node: Node, x: Any, factor: Any) -> Any:
    return node.emit(relax.op.multiply(x, factor))

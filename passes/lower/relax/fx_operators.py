"""ATen operators to Relax, where TVM 0.27's importer has none or gets them wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.fx import Node
from tvm import relax

from ....ir.fx_ops import bind


def _embedding(node: Node, importer: Any) -> relax.Expr:
    """TVM's casts ids to int32 and flattens them."""
    table, ids = (importer.env[operand] for operand in node.args[:2])
    return importer.block_builder.emit(relax.op.take(table, ids, axis=0))


def _layer_norm(node: Node, importer: Any) -> relax.Expr:
    """TVM's fails on a norm without a bias."""
    given = bind(node)
    x = importer.env[given["input"]]
    shape = [int(size) for size in given["normalized_shape"]]
    weight, bias = (given[name] and importer.env[given[name]] for name in ("weight", "bias"))
    dtype = str(x.ty.dtype)
    weight = weight if weight is not None else relax.const(np.ones(shape), dtype)
    bias = bias if bias is not None else relax.const(np.zeros(shape), dtype)
    axes = list(range(-len(shape), 0))
    return importer.block_builder.emit(relax.op.nn.layer_norm(x, weight, bias, axes, given["eps"]))


def _masked_fill(node: Node, importer: Any) -> relax.Expr:
    """TVM's makes a tensor of the fill, which it then cannot lower."""
    x, mask = (importer.env[operand] for operand in node.args[:2])
    fill = relax.const(node.args[2], str(x.ty.dtype))
    return importer.block_builder.emit(relax.op.where(mask, fill, x))


def _reduction(operator: Callable[..., relax.Expr]) -> Callable[[Node, Any], relax.Expr]:
    def convert(node: Node, importer: Any) -> relax.Expr:
        given = bind(node)
        axes: Sequence[int] | None = given["dim"] or None
        x = importer.env[given["self"]]
        return importer.block_builder.emit(operator(x, axes, keepdims=given["keepdim"]))

    return convert


OPERATORS: dict[str, Callable[[Node, Any], relax.Expr]] = {
    "amax.default": _reduction(relax.op.max),
    "amin.default": _reduction(relax.op.min),
    "embedding.default": _embedding,
    "layer_norm.default": _layer_norm,
    "masked_fill.Scalar": _masked_fill,
}
"""By what an overload calls itself: converters as TVM's custom_convert_map takes them."""

"""ATen operators to Relax, where TVM 0.27's importer has none or gets them wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.fx import Node
from tvm import relax

from ....ir.fx.operators import bind
from .einsum import as_product


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


def _linear(node: Node, importer: Any) -> relax.Expr:
    """TVM's gives float32 whatever it is given, as do its other products."""
    given = bind(node)
    x, weight = (importer.env[given[name]] for name in ("input", "weight"))
    emit = importer.block_builder.emit
    y = emit(relax.op.matmul(x, emit(relax.op.permute_dims(weight))))
    return y if given["bias"] is None else emit(relax.op.add(y, importer.env[given["bias"]]))


def _addmm(node: Node, importer: Any) -> relax.Expr:
    given = bind(node)
    bias, x, weight = (importer.env[given[name]] for name in ("self", "mat1", "mat2"))
    emit, dtype = importer.block_builder.emit, str(x.ty.dtype)
    y = emit(relax.op.matmul(x, weight))
    if given["alpha"] != 1:
        y = emit(relax.op.multiply(y, relax.const(given["alpha"], dtype)))
    if given["beta"] != 1:
        bias = emit(relax.op.multiply(bias, relax.const(given["beta"], dtype)))
    return emit(relax.op.add(y, bias))


def _matmul(node: Node, importer: Any) -> relax.Expr:
    x, y = (importer.env[operand] for operand in node.args[:2])
    return importer.block_builder.emit(relax.op.matmul(x, y))


def _einsum(node: Node, importer: Any) -> relax.Expr:
    """A matrix product where it is one, for recognisers to find."""
    given = bind(node)
    operands = [importer.env[operand] for operand in given["tensors"]]
    emit, equation = importer.block_builder.emit, given["equation"]
    found = as_product(emit, equation, *operands) if len(operands) == 2 else None
    return emit(relax.op.einsum(tuple(operands), equation)) if found is None else found


def _masked_fill(node: Node, importer: Any) -> relax.Expr:
    """TVM's makes a tensor of the fill, which it then cannot lower."""
    x, mask = (importer.env[operand] for operand in node.args[:2])
    fill = relax.const(node.args[2], str(x.ty.dtype))
    return importer.block_builder.emit(relax.op.where(mask, fill, x))


def _where(node: Node, importer: Any) -> relax.Expr:
    """TVM's takes no numbers, which torch would write as tensors in a second trace."""
    given, emit = bind(node), importer.block_builder.emit
    operands = [_typed(given[name], node, importer) for name in ("self", "other")]
    return emit(relax.op.where(importer.env[given["condition"]], *operands))


def _to(node: Node, importer: Any) -> relax.Expr:
    """TVM's casts to the type that there is, too."""
    return _typed(node.args[0], node, importer)


def _typed(operand: Any, node: Node, importer: Any) -> relax.Expr:
    """An operand, a node or a number, in the type that a node gives."""
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")
    value = importer.env[operand] if isinstance(operand, Node) else operand
    if not isinstance(value, relax.Expr):
        return relax.const(value, dtype)
    return (
        value if str(value.ty.dtype) == dtype else importer.block_builder.emit(relax.op.astype(value, dtype))
    )


def _arithmetic(
    operator: Callable[..., relax.Expr], turned: bool = False
) -> Callable[[Node, Any], relax.Expr]:
    """TVM's takes a number for one of the tensor's type (0.5 times integers is zero), and drops alpha."""

    def convert(node: Node, importer: Any) -> relax.Expr:
        given, emit = bind(node), importer.block_builder.emit
        x, y = (_typed(given[name], node, importer) for name in ("self", "other"))
        if given.get("alpha", 1) != 1:
            dtype = str(x.ty.dtype)
            scaled = emit(relax.op.multiply(x if turned else y, relax.const(given["alpha"], dtype)))
            x, y = (scaled, y) if turned else (x, scaled)
        return emit(operator(y, x) if turned else operator(x, y))

    return convert


def _reduction(operator: Callable[..., relax.Expr]) -> Callable[[Node, Any], relax.Expr]:
    def convert(node: Node, importer: Any) -> relax.Expr:
        given = bind(node)
        axes: Sequence[int] | None = given["dim"] or None
        x = importer.env[given["self"]]
        return importer.block_builder.emit(operator(x, axes, keepdims=given["keepdim"]))

    return convert


OPERATORS: dict[str, Callable[[Node, Any], relax.Expr]] = {
    **{
        f"{name}.{form}": _arithmetic(operator, name == "rsub")
        for form in ("Tensor", "Scalar")
        for name, operator in (
            ("add", relax.op.add),
            ("div", relax.op.divide),
            ("mul", relax.op.multiply),
            ("rsub", relax.op.subtract),
            ("sub", relax.op.subtract),
        )
    },
    "addmm.default": _addmm,
    "amax.default": _reduction(relax.op.max),
    "amin.default": _reduction(relax.op.min),
    "bmm.default": _matmul,
    "einsum.default": _einsum,
    "embedding.default": _embedding,
    "layer_norm.default": _layer_norm,
    "linear.default": _linear,
    "masked_fill.Scalar": _masked_fill,
    "matmul.default": _matmul,
    "mm.default": _matmul,
    "to.device": _to,
    "to.dtype": _to,
    "to.dtype_layout": _to,
    "to.other": _to,
    "where.Scalar": _where,
    "where.ScalarOther": _where,
    "where.ScalarSelf": _where,
}
"""By what an overload calls itself: converters as TVM's custom_convert_map takes them."""

"""Rows that were flattened, (batch, length, n) to (batch * length, n), before what treats each row by itself:
flattened afterwards, where the way back meets it and both are gone."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm.relax import op

from .rewriter import Rewriter, Rule, operator, shape

_ONE = (
    "abs astype clip erf exp negative nn.gelu nn.gelu_tanh nn.relu nn.silu round rsqrt sigmoid sqrt tanh"
).split()
_TWO = "add divide maximum minimum multiply power subtract".split()


def _flat(this: Rewriter, value: Any) -> Any:
    """What a value of rows was before it was flattened, its features in one axis; None for anything else."""
    reshape = this.source(value, "reshape")
    if reshape is None or len(shape(value)) != 2:
        return None
    whole, (rows, n) = shape(reshape.args[0]), shape(value)
    leading = next((k for k in range(2, len(whole)) if prod(whole[:k]) == rows), None)
    if leading is None:
        return None
    wanted = (*whole[:leading], n)
    return reshape.args[0] if whole == wanted else this.emit(op.reshape(reshape.args[0], wanted))


def _by_row(this: Rewriter, call: Any) -> Any:
    """One operand, the first; the others hold for every row."""
    whole = _flat(this, call.args[0])
    if whole is None or (operator(call) == "matmul" and len(shape(call.args[1])) != 2):
        return None
    if operator(call).endswith("_norm"):
        return _norm(this, call, whole)
    return _again(this, call, [whole, *call.args[1:]])


def _norm(this: Rewriter, call: Any, whole: Any) -> Any:
    axes = [int(axis) % 2 for axis in call.attrs.axes]
    if axes != [1]:
        return None
    name = op.nn.layer_norm if operator(call).endswith("layer_norm") else op.nn.rms_norm
    made = this.emit(name(whole, *call.args[1:], axes=[-1], epsilon=float(call.attrs.epsilon)))
    return op.reshape(made, shape(call))


def _together(this: Rewriter, call: Any) -> Any:
    """Two operands: rows flattened alike, or one that is the same for every row."""
    wholes = [_flat(this, operand) for operand in call.args]
    found = [whole for whole in wholes if whole is not None]
    if not found or any(shape(whole) != shape(found[0]) for whole in found):
        return None
    for operand, whole in zip(call.args, wholes, strict=True):
        if whole is None and any(size != 1 for size in shape(operand)[:-1]):
            return None
    operands = [operand if whole is None else whole for operand, whole in zip(call.args, wholes, strict=True)]
    return _again(this, call, operands)


def _again(this: Rewriter, call: Any, operands: list[Any]) -> Any:
    made = this.emit(tvm.ir.Call(call.op, operands, call.attrs, call.ty_args))
    return op.reshape(made, shape(call))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("matmul", "nn.layer_norm", "nn.rms_norm", *_ONE), _by_row),
    **dict.fromkeys(_TWO, _together),
}

"""Rules for masks and scales: small where broadcasting serves, and applied once."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import relax
from tvm.relax import op

from .rewriter import Rewriter, Rule, Shape, array, number, shape


def _and(this: Rewriter, call: Any) -> Any:
    """A condition that always holds."""
    for condition, other in (tuple(call.args), tuple(reversed(call.args))):
        held = array(condition)
        if held is not None and held.dtype == bool and held.all() and str(other.ty.dtype) == "bool":
            return _broadcast(other, shape(call))
    return None


def _broadcast(value: Any, wanted: Shape) -> Any:
    return value if shape(value) == wanted else op.broadcast_to(value, wanted)


def elementwise(this: Rewriter, call: Any) -> Any:
    """Operands that are broadcast only to be broadcast again, or all of them, stay small."""
    wide = [this.source(operand, "broadcast_to") for operand in call.args]
    if not any(source is not None for source in wide):
        return None
    small = [
        source.args[0] if source is not None else given for source, given in zip(wide, call.args, strict=True)
    ]
    result = this.emit(relax.Call(call.op, small, call.attrs, call.ty_args))
    return _broadcast(result, shape(call))


def _product(this: Rewriter, call: Any) -> Any:
    """(a x) (b y) with numbers a, b is a b (x y), where both sides are activations."""
    factors, sides = [], []
    for side in call.args:
        scaled = this.source(side, "multiply")
        factor = None if scaled is None else number(scaled.args[1])
        sides.append(side if factor is None else scaled.args[0])
        factors += [] if factor is None else [factor]
    if not factors or any(isinstance(side, tvm.ir.GenericConst) for side in sides):
        return None
    plain = op.matmul(*sides, out_dtype=call.attrs.out_dtype)
    return op.multiply(plain, relax.const(prod(factors), str(call.ty.dtype)))


def times(this: Rewriter, call: Any) -> Any:
    """A constant factor second, and one factor of two."""
    first, second = call.args
    if isinstance(first, tvm.ir.GenericConst) and not isinstance(second, tvm.ir.GenericConst):
        return op.multiply(second, first)
    inner = this.source(first, "multiply")
    factor, other = number(second), None if inner is None else number(inner.args[1])
    if factor is None or other is None:
        return elementwise(this, call)
    return op.multiply(inner.args[0], relax.const(factor * other, str(call.ty.dtype)))


RULES: dict[str, Rule] = {
    "add": elementwise,
    "bitwise_and": _and,
    "logical_and": _and,
    "matmul": _product,
    "multiply": times,
    "subtract": elementwise,
    "where": elementwise,
}

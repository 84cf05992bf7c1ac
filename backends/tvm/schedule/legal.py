"""How a Relax operator is written out, where TVM's own way is dangerous, or slow."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import topi
from tvm.ir import GenericConst, register_op_attr
from tvm.tirx import const

_ABOVE = 11  # TVM registers its own at 10


def register() -> None:
    """For every pass that writes operators out: gathers stay inside their tables, where TVM's own read
    whatever lies at an index out of range and print a warning about it; squares and square roots are no calls
    of pow for each element; what is not less is not at least as large, as it is to TVM's simplifier, and no
    number is another than itself and equal to nothing, where TVM's own says neither.
    """
    register_op_attr("relax.take", "FLegalize", _take, _ABOVE)
    register_op_attr("relax.power", "FLegalize", _power, _ABOVE)
    register_op_attr("relax.logical_not", "FLegalize", _logical_not, _ABOVE)
    register_op_attr("relax.equal", "FLegalize", _equal, _ABOVE)
    register_op_attr("relax.not_equal", "FLegalize", _not_equal, _ABOVE)


def _take(builder: Any, call: Any) -> Any:
    mode = "clip" if call.attrs.mode == "fast" else call.attrs.mode
    return builder.call_te(topi.take, call.args[0], call.args[1], call.attrs.axis, mode=mode)


def _power(builder: Any, call: Any) -> Any:
    base, exponent = call.args
    held = exponent.value.numpy() if isinstance(exponent, GenericConst) else np.empty(0)
    if held.size == 1 and str(base.ty.dtype).startswith("float") and held.ndim <= base.ty.ndim:
        if held.item() == 2:
            return builder.call_te(lambda x: topi.multiply(x, x), base)
        if held.item() == 0.5:
            return builder.call_te(topi.sqrt, base)
    return builder.call_te(topi.power, base, exponent)


def _turned(x: Any) -> Any:
    return topi.logical_xor(x, const(True, "bool"))


def _logical_not(builder: Any, call: Any) -> Any:
    """TVM's own of a < b becomes b <= a, which NaN is not either."""
    (x,) = call.args
    return builder.call_te(_turned if str(x.ty.dtype) == "bool" else topi.logical_not, x)


def _equal(builder: Any, call: Any) -> Any:
    """To TVM's simplifier a value is equal to itself, which NaN is not."""
    a, b = call.args
    if _floats(a) and a.same_as(b):
        return builder.call_te(lambda x: _turned(topi.isnan(x)), a)
    return builder.call_te(topi.equal, a, b)


def _not_equal(builder: Any, call: Any) -> Any:
    """TVM's own of floats is LLVM's "one", less or greater, which nothing is beside NaN."""
    a, b = call.args
    if _floats(a) and a.same_as(b):
        return builder.call_te(topi.isnan, a)
    return builder.call_te(_differ if _floats(a) else topi.not_equal, a, b)


def _differ(a: Any, b: Any) -> Any:
    return _turned(topi.equal(a, b))


def _floats(x: Any) -> bool:
    return str(x.ty.dtype).startswith("float")

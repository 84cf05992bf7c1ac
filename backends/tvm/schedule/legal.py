"""How a Relax operator is written out, where TVM's own way is dangerous, or slow."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import topi
from tvm.ir import GenericConst, register_op_attr

_ABOVE = 11  # TVM registers its own at 10


def register() -> None:
    """For every pass that writes operators out: gathers stay inside their tables, where TVM's own read
    whatever lies at an index out of range and print a warning about it; squares and square roots are no calls
    of pow for each element.
    """
    register_op_attr("relax.take", "FLegalize", _take, _ABOVE)
    register_op_attr("relax.power", "FLegalize", _power, _ABOVE)


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

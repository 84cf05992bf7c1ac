"""Operators without a kernel: left to the compiler, on whole tensors, or on rows that do not mix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import tvm

from ....ir.values import Value, sizes
from ..kernels.bfloat16 import nearest
from .items import Item
from .rebuild import over
from .site import Site
from .view import RelaxView

ROWWISE = {
    "add", "sub", "mul", "div", "pow", "maximum", "minimum", "neg", "abs", "exp", "sqrt", "rsqrt", "erf",
    "tanh", "sigmoid", "relu", "gelu", "silu", "identity",
}  # fmt: skip


def write_operator(site: Site, view: RelaxView, binding: Any, tuples: Mapping[Any, Any]) -> Item:
    """The item of one binding.

    Args:
        tuples: what the variables that hold tuples are bound to; each is written once.
    """
    value = view.of(binding.var)
    needs = [(operand, "float") for operand in value.inputs if operand is not None]

    def variable(read: Any) -> Any:
        if read in view:
            return site.emitter.whole(view.of(read))
        if read not in site.tuples:
            site.tuples[read] = site.emitter.builder.emit(over(tuples[read], variable))
        return site.tuples[read]

    def write() -> None:
        em = site.emitter
        if value.op == "identity" and not rowwise(site, value):
            assert value.inputs[0] is not None
            em.set_whole(value, em.whole(value.inputs[0]))
            return
        if not rowwise(site, value):
            read = _nearest(site, value) if _narrows(value) else variable
            em.set_whole(value, em.builder.emit(over(binding.value, read)))
            return
        em.tokens.add(value)
        operands = [_row_operand(site, value, operand) for operand in value.inputs if operand is not None]
        if value.op == "identity":
            em.set_rows(value, operands[0])
            return
        call = tvm.ir.Call(binding.value.op, operands, binding.value.attrs, binding.value.ty_args)
        em.set_rows(value, em.builder.emit(call))

    return Item((value,), tuple(needs), write)  # type: ignore[arg-type]


def _narrows(value: Value) -> bool:
    """Whether floats are rounded to bfloat16."""
    source = value.inputs[0] if value.op == "cast" and value.dtype == "bfloat16" else None
    return source is not None and source.dtype == "float32" and prod(sizes(source)) > 0


def _nearest(site: Site, value: Value) -> Callable[[Any], Any]:
    """What stands for the operand of a cast to bfloat16: rounded already, for TVM 0.27 leaves out a cast to
    bfloat16 that is cast back."""
    em, source = site.emitter, value.inputs[0]
    assert source is not None
    shape = list(sizes(source))
    width = shape[-1] if shape else 1
    flat = em.shaped(em.whole(source), [prod(shape) // width, width])
    (rounded,) = em.kernel(
        f"nearest_{width}", ("nearest", width), lambda: nearest(width, site.machine),
        [flat], [((prod(shape) // width, width), "float32")],
    )  # fmt: skip
    return lambda _: em.shaped(rounded, shape)


def rowwise(site: Site, value: Value) -> bool:
    """Whether an operator treats every token's row by itself, so that padding can stay away."""
    if not site.packed or value.op not in ROWWISE:
        return False
    operands = [operand for operand in value.inputs if operand is not None]
    tokens = [o for o in operands if site.emitter.is_tokens(o) and o.shape == value.shape]
    return bool(tokens) and all(o.shape == value.shape or _everywhere(o) for o in operands)


def _everywhere(operand: Value) -> bool:
    """Whether a constant is the same for every row."""
    return operand.const is not None and all(d == 1 for d in (operand.shape or ())[:-1])


def _row_operand(site: Site, value: Value, operand: Value) -> Any:
    if operand.shape == value.shape:
        return site.emitter.rows(operand, like=value)
    data = operand.const
    assert data is not None
    return site.emitter.constant(data.reshape(-1) if data.ndim else data)

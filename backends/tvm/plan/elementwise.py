"""Operators without a kernel: left to the compiler, on whole tensors, or on rows that do not mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from ....ir.values import Value
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
            em.set_whole(value, em.builder.emit(over(binding.value, variable)))
            return
        em.tokens.add(value)
        operands = [_row_operand(site, value, operand) for operand in value.inputs if operand is not None]
        if value.op == "identity":
            em.set_rows(value, operands[0])
            return
        call = tvm.ir.Call(binding.value.op, operands, binding.value.attrs, binding.value.ty_args)
        em.set_rows(value, em.builder.emit(call))

    return Item((value,), tuple(needs), write)  # type: ignore[arg-type]


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

"""Edits a Relax function binding by binding, with no inference of types in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax


def edited(function: Any, edit: Callable[[Any], Any]) -> Any:
    """The function with each binding's value as `edit` gives it.

    Args:
        function: whose body is a sequence of blocks, as compilation leaves it.
        edit: a value -> itself, one to take its place, or None to drop the binding.
    """
    blocks = []
    for block in function.body.blocks:
        kept = []
        for binding in block.bindings:
            value = edit(binding.value) if isinstance(binding, relax.VarBinding) else binding.value
            if value is None:
                continue
            kept.append(binding if value is binding.value else relax.VarBinding(binding.var, value))
        blocks.append(type(block)(kept))
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def called(value: Any) -> str:
    """The operator, or the packed function, that a value calls; empty for anything else."""
    function = getattr(value, "op", None)
    return getattr(function, "global_symbol", None) or getattr(function, "name", None) or ""

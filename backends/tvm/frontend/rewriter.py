"""Rewrites of Relax, a rule for each operator, until nothing is left to rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm.relax import PyExprMutator, expr_functor

Shape = tuple[int, ...]
_PASSES = 64  # every pass moves what it moves past one operator more; nothing long is left after a few


def rewritten(module: tvm.IRModule, rules: Mapping[str, Rule]) -> tvm.IRModule:
    """The module with rules applied to "main", again and again: what one leaves may be another's to take.

    Args:
        rules: by operator name, without "relax.".
    """
    for _ in range(_PASSES):
        rewriter = Rewriter(module, rules)
        variable = module.get_global_var("main")
        rewriter.builder_.update_func(variable, rewriter.visit_expr(module["main"]))
        module = rewriter.builder_.get()
        if not rewriter.count:
            break
    return module


@expr_functor.mutator
class Rewriter(PyExprMutator):
    """count: of rewrites so far."""

    def __init__(self, module: tvm.IRModule, rules: Mapping[str, Rule]) -> None:
        super().__init__(module)
        self.rules = rules
        self.count = 0

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        rule = self.rules.get(operator(call))
        found = rule(self, call) if rule is not None else None
        self.count += found is not None
        return call if found is None else found

    def emit(self, value: Any) -> Any:
        """A variable that is bound to an expression."""
        return self.builder_.emit(value)

    def source(self, value: Any, *names: str) -> Any:
        """The call behind a variable, if it is of one of these operators."""
        found = self._bound(value)
        return found if operator(found) in names else None

    def held(self, value: Any) -> np.ndarray | None:
        """What a constant, or a variable bound to one, holds."""
        return array(self._bound(value))

    def _bound(self, value: Any) -> Any:
        while isinstance(value, tvm.ir.Var):
            value = self.lookup_binding(value)
        return value


Rule = Callable[[Rewriter, Any], Any]
"""Gives what takes a call's place, or None."""


def operator(call: Any) -> str:
    """The name of a call's operator; empty for anything else."""
    return getattr(getattr(call, "op", None), "name", "").removeprefix("relax.")


def shape(value: Any) -> Shape:
    """A value's static shape."""
    return tuple(int(size) for size in value.ty.shape.values)


def array(value: Any) -> np.ndarray | None:
    """What a constant holds."""
    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def number(value: Any) -> float | None:
    """What a constant without axes holds."""
    held = array(value)
    return float(held) if held is not None and held.ndim == 0 else None

"""Weights of few bits, kept as they are stored while everything constant around them is folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.relax import PyExprMutator, expr_functor

_FEW = 8  # bytes: so little is a number or two, no weight


def keeping_narrow(module: tvm.IRModule, rewrite: Callable[[tvm.IRModule], tvm.IRModule]) -> tvm.IRModule:
    """Applies a rewrite to which constants of a byte or two an element are unknown.

    TVM's FoldConstant would decode quantized weights to float, and nobody could find the integers again.
    """
    hider = _Hider(module)
    variable = module.get_global_var("main")
    main = hider.visit_expr(module["main"])
    parameters = [*main.params, *hider.hidden]
    main = relax.Function(parameters, main.body, main.ret_ty, main.is_pure, main.attrs)
    hider.builder_.update_func(variable, main)
    module = rewrite(hider.builder_.get())
    constants = {name.name: value for name, value in hider.hidden.items()}
    return relax.transform.BindParams("main", constants)(module) if constants else module


@expr_functor.mutator
class _Hider(PyExprMutator):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.hidden: dict[Any, Any] = {}

    def visit_generic_const_(self, op: Any) -> Any:
        tensor = op.value
        array = tensor.numpy()
        if array.dtype.kind == "b" or array.dtype.itemsize > 2 or array.nbytes <= _FEW:
            return op
        for variable, value in self.hidden.items():
            if value.same_as(tensor):
                return variable
        variable = relax.Var(f"narrow_{len(self.hidden)}", op.ty)
        self.hidden[variable] = tensor
        return variable

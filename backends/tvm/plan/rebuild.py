"""Writing a Relax function anew: a binding's value over other variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import relax


def over(expression: Any, variable: Callable[[Any], Any]) -> Any:
    """A binding's value with `variable` applied to every variable that it reads."""
    if isinstance(expression, relax.Var):
        return variable(expression)
    if isinstance(expression, relax.Tuple):
        return relax.Tuple([over(field, variable) for field in expression.fields])
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(over(expression.tuple_value, variable), int(expression.index))
    if isinstance(expression, tvm.ir.Call):
        arguments = [over(argument, variable) for argument in expression.args]
        return tvm.ir.Call(expression.op, arguments, expression.attrs, expression.ty_args)
    return expression


def read(expression: Any) -> list[Any]:
    """The variables that a binding's value reads."""
    found: list[Any] = []

    def seen(variable: Any) -> Any:
        found.append(variable)
        return variable

    over(expression, seen)
    return found


def bindings(function: Any) -> list[Any]:
    """The bindings of a function without control flow, in order."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def part(module: Any, values: Sequence[Any]) -> Any:
    """A module whose "main" computes some of main's values from its inputs, as a tuple."""
    function = module["main"]
    needed = set(values)
    kept = []
    for binding in reversed(bindings(function)):
        if binding.var in needed:
            kept.append(binding)
            needed.update(read(binding.value))
    builder = relax.BlockBuilder()
    made = {parameter: relax.Var(str(parameter.name), parameter.ty) for parameter in function.params}
    with builder.function("main", list(made.values())):
        with builder.dataflow():
            for binding in reversed(kept):
                made[binding.var] = builder.emit(over(binding.value, lambda v: made[v]))
            result = builder.emit_output(relax.Tuple([made[value] for value in values]))
        builder.emit_func_output(result)
    return with_kernels(builder.get(), module)


def with_kernels(made: Any, module: Any) -> Any:
    """A module with the PrimFuncs of another added under the names that calls know them by."""
    for name, function in module.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc):
            made[name] = function
    return made

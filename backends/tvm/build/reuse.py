"""What a function makes again and again, it makes once: shapes, and views of one storage."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from .bindings import called

# Each gives the same for the same arguments, and takes some 0.3 us: together a tenth of a short call. Tensors
# of one storage at one offset are never in use at the same time.
_REPEATED = ("vm.builtin.make_shape", "relax.vm.alloc_tensor")


@tvm.transform.module_pass(opt_level=0)
class Reused:
    """Lets bindings of equal calls share the first one's variable. Nothing may be killed in between."""

    def transform_module(self, module: Any, _: Any) -> Any:
        module = module.clone()
        for variable, function in module.functions_items():
            if isinstance(function, relax.Function):
                module.update_func(variable, _reused(function))
        return module


def _reused(function: Any) -> Any:
    made: dict[Any, Any] = {}
    instead: dict[Any, Any] = {}
    fields: dict[Any, Any] = {}
    kept: list[Any] = []
    for block in function.body.blocks:
        for binding in block.bindings:
            value = _with(binding.value, instead)
            if isinstance(value, relax.Tuple):
                fields[binding.var] = value.fields
            elif isinstance(value, relax.TupleGetItem) and value.tuple_value in fields:
                value = fields[value.tuple_value][value.index]
            key = (called(value), *map(_key, value.args)) if called(value) in _REPEATED else None
            if isinstance(value, relax.Var) or key in made:
                instead[binding.var] = value if isinstance(value, relax.Var) else made[key]
                continue
            if key is not None:
                made[key] = binding.var
            kept.append(relax.VarBinding(binding.var, value))
    result = instead.get(function.body.body, function.body.body)
    read = {result, *(var for binding in kept for var in _read(binding.value))}
    kept = [each for each in kept if each.var in read or not isinstance(each.value, relax.Tuple)]
    body = relax.SeqExpr([relax.BindingBlock(kept)], result)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _with(value: Any, instead: dict[Any, Any]) -> Any:
    """A value that reads other variables."""
    if isinstance(value, relax.Var):
        return instead.get(value, value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([_with(field, instead) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_with(value.tuple_value, instead), value.index)
    if isinstance(value, tvm.ir.Call):
        arguments = [_with(argument, instead) for argument in value.args]
        return tvm.ir.Call(value.op, arguments, value.attrs, value.ty_args, value.span)
    return value


def _read(value: Any) -> list[Any]:
    """The variables that a value is made of."""
    parts = (
        getattr(value, "args", None)
        or getattr(value, "fields", None)
        or [getattr(value, "tuple_value", value)]
    )
    return [part for part in parts if isinstance(part, relax.Var)]


def _key(argument: Any) -> Any:
    """Variables are themselves; anything else is what it says."""
    return argument if isinstance(argument, relax.Var) else tvm.ir.save_json(argument)

"""Detours that exporters and importers take, undone in Relax: layouts, masks and scales."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax import PyExprMutator, expr_functor

Shape = tuple[int, ...]


def simplified(module: tvm.IRModule) -> tvm.IRModule:
    """The module with these rewrites in "main"; shapes are static.

    * permutations of permutations, reshapes of reshapes, casts and broadcasts to what a value is already;
    * a transpose of the last axes behind merged leading axes is one permutation;
    * indexing that takes every element in order is a reshape;
    * a condition that always holds drops out of an And, and what it only made larger stays small;
    * factors of both sides of a product of activations multiply its result, once.
    """
    rewritten = 1
    while rewritten:  # what one rewrite leaves may be another's to take
        mutator = _Simplifier(module)
        mutator.builder_.update_func(module.get_global_var("main"), mutator.visit_expr(module["main"]))
        module, rewritten = mutator.builder_.get(), mutator.rewritten
    return module


@expr_functor.mutator
class _Simplifier(PyExprMutator):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.rewritten = 0

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        rule = _RULES.get(_name(call))
        found = rule(self, call) if rule is not None else None
        self.rewritten += found is not None
        return call if found is None else found

    def source(self, value: Any, *names: str) -> Any:
        """The call behind a variable, if it is of one of these operators."""
        found = value
        while isinstance(found, tvm.ir.Var):
            found = self.lookup_binding(found)
        return found if found is not None and _name(found) in names else None


def _name(call: Any) -> str:
    return getattr(getattr(call, "op", None), "name", "").removeprefix("relax.")


def _shape(value: Any) -> Shape:
    return tuple(int(size) for size in value.ty.shape.values)


def _axes(call: Any) -> Shape:
    rank = len(call.args[0].ty.shape.values)
    axes = call.attrs.axes
    return tuple(int(axis) % rank for axis in axes) if axes is not None else tuple(reversed(range(rank)))


def _array(value: Any) -> np.ndarray | None:
    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def _number(value: Any) -> float | None:
    """A constant of one element."""
    array = _array(value)
    return float(array.reshape(())) if array is not None and array.size == 1 and array.ndim == 0 else None


def _permute(this: _Simplifier, call: Any) -> Any:
    axes = _axes(call)
    if axes == tuple(range(len(axes))):
        return call.args[0]
    inner = this.source(call.args[0], "permute_dims")
    if inner is None:
        return None
    whole = tuple(_axes(inner)[axis] for axis in axes)
    return inner.args[0] if whole == tuple(range(len(whole))) else relax.op.permute_dims(inner.args[0], whole)


def _reshape(this: _Simplifier, call: Any) -> Any:
    shape = _shape(call)
    if shape == _shape(call.args[0]):
        return call.args[0]
    inner = this.source(call.args[0], "reshape", "permute_dims", "expand_dims", "squeeze")
    if inner is None:
        return None
    if _name(inner) != "permute_dims":
        return relax.op.reshape(inner.args[0], shape) if shape != _shape(inner.args[0]) else inner.args[0]
    return _split_again(this, inner, shape)


def _split_again(this: _Simplifier, permuted: Any, shape: Shape) -> Any:
    """reshape(permute(reshape(x))) where the first merges leading axes that the last takes apart again."""
    merged = this.source(permuted.args[0], "reshape")
    axes = _axes(permuted)
    if merged is None or axes[0] != 0:
        return None
    whole, tail = _shape(merged.args[0]), _shape(merged)[1:]
    leading = len(whole) - len(tail)
    turned = tuple(tail[axis - 1] for axis in axes[1:])
    if leading < 1 or whole[leading:] != tail or shape != whole[:leading] + turned:
        return None
    return relax.op.permute_dims(
        merged.args[0], [*range(leading), *(axis - 1 + leading for axis in axes[1:])]
    )


def _indexed(this: _Simplifier, call: Any) -> Any:
    """Indices that take every element in order."""
    shape = _shape(call.args[0])
    count = np.arange(prod(shape)).reshape(shape)
    if _name(call) == "gather_nd":
        indices = _array(call.args[1])
        if indices is None or int(call.attrs.batch_dims):
            return None
        taken = count[tuple(np.moveaxis(indices, -1, 0))]
    else:
        arrays = [_array(index) for index in call.args[1]]
        if any(array is None for array in arrays):
            return None
        taken = count[tuple(arrays)]
    in_order = taken.size == count.size and np.array_equal(taken.reshape(-1), count.reshape(-1))
    return relax.op.reshape(call.args[0], taken.shape) if in_order else None


def _and(this: _Simplifier, call: Any) -> Any:
    for condition, other in (tuple(call.args), tuple(reversed(call.args))):
        array = _array(condition)
        if array is not None and array.dtype == bool and array.all() and str(other.ty.dtype) == "bool":
            return _broadcast(other, _shape(call))
    return None


def _broadcast(value: Any, shape: Shape) -> Any:
    return value if _shape(value) == shape else relax.op.broadcast_to(value, shape)


def _same(this: _Simplifier, call: Any) -> Any:
    same = _shape(call) == _shape(call.args[0]) and str(call.ty.dtype) == str(call.args[0].ty.dtype)
    return call.args[0] if same else None


def _elementwise(this: _Simplifier, call: Any) -> Any:
    """Operands that are broadcast only to be broadcast again, or all of them, stay small."""
    wide = [this.source(operand, "broadcast_to") for operand in call.args]
    if not any(source is not None for source in wide):
        return None
    small = [
        source.args[0] if source is not None else operand
        for source, operand in zip(wide, call.args, strict=True)
    ]
    result = relax.Call(call.op, small, call.attrs, call.ty_args)
    shape = np.broadcast_shapes(*(_shape(operand) for operand in small))
    if shape == _shape(call):
        return result
    return relax.op.broadcast_to(result, _shape(call))


def _product(this: _Simplifier, call: Any) -> Any:
    """(a x) (b y) with numbers a, b is a b (x y), where both sides are activations."""
    factors, sides = [], []
    for side in call.args:
        scaled = this.source(side, "multiply")
        number = None if scaled is None else _number(scaled.args[1])
        sides.append(side if number is None else scaled.args[0])
        factors += [] if number is None else [number]
    if not factors or any(isinstance(side, tvm.ir.GenericConst) for side in sides):
        return None
    plain = relax.op.matmul(*sides, out_dtype=call.attrs.out_dtype)
    return relax.op.multiply(plain, relax.const(prod(factors), str(call.ty.dtype)))


def _times(this: _Simplifier, call: Any) -> Any:
    """A constant factor second, and one factor of two."""
    first, second = call.args
    if isinstance(first, tvm.ir.GenericConst) and not isinstance(second, tvm.ir.GenericConst):
        return relax.op.multiply(second, first)
    inner = this.source(first, "multiply")
    number, other = _number(second), None if inner is None else _number(inner.args[1])
    if number is None or other is None:
        return _elementwise(this, call)
    return relax.op.multiply(inner.args[0], relax.const(number * other, str(call.ty.dtype)))


_RULES: dict[str, Callable[[_Simplifier, Any], Any]] = {
    "permute_dims": _permute, "reshape": _reshape, "gather_nd": _indexed, "index_tensor": _indexed,
    "logical_and": _and, "bitwise_and": _and, "astype": _same, "broadcast_to": _same, "where": _elementwise,
    "add": _elementwise, "subtract": _elementwise, "multiply": _times, "matmul": _product,
}  # fmt: skip

"""Integer products spelled out in integers, written as products of rounded floats.

ONNX Runtime's dynamic quantizer, and com.microsoft.MatMulIntegerToFloat, give
cast(matmul(q - zero, w)) * (scale * w_scale). Recognisers know it as matmul(dequantize(q), dequantize(w)),
which is the same number; no float product is computed unless no kernel takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import relax

from ....ir.view import Value
from ..view import RelaxView
from .rebuild import bindings, over, with_kernels


@dataclass(frozen=True)
class _Operand:
    """integers and the zero point that is taken off them, None for none."""

    integers: Value
    zero: Value | None


@dataclass(frozen=True)
class _Product:
    """x and w as integers; the scales of both."""

    x: _Operand
    w: _Operand
    x_scale: Value
    w_scale: Value


def as_floats(module: Any) -> Any:
    """The module with every integer product that is rescaled to floats written that way."""
    main = module["main"]
    view = RelaxView(main)
    found = {value: product for value in view.values if (product := _product(value)) is not None}
    if not found:
        return module
    builder = relax.BlockBuilder()
    made = {parameter: relax.Var(str(parameter.name), parameter.ty) for parameter in main.params}
    known: dict[_Operand, Any] = {}

    def read(value: Value) -> Any:
        return made.get(value.native, value.native)

    def floats(operand: _Operand, scale: Value, axis: int) -> Any:
        if operand not in known:
            zero = read(operand.zero) if operand.zero is not None else relax.const(0, operand.integers.dtype)
            call = relax.op.dequantize(
                read(operand.integers), read(scale), zero, axis=axis, out_dtype="float32"
            )
            known[operand] = builder.emit(call)
        return known[operand]

    with builder.function("main", list(made.values())):
        with builder.dataflow():
            for binding in bindings(main):
                product = found.get(view.of(binding.var)) if binding.var in view else None
                if product is None:
                    made[binding.var] = builder.emit(over(binding.value, lambda v: made[v]))
                    continue
                x, w = floats(product.x, product.x_scale, -1), floats(product.w, product.w_scale, -1)
                made[binding.var] = builder.emit(relax.op.matmul(x, w))
            result = builder.emit_output(over(main.body.body, lambda v: made[v]))
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination()(with_kernels(builder.get(), module))


def _product(value: Value) -> _Product | None:
    """The rescaled product that a value is."""
    if value.op != "mul" or value.dtype != "float32":
        return None
    for product, scale in (value.inputs, value.inputs[::-1]):
        if product is None or scale is None or product.op != "cast" or scale.op != "mul":
            continue
        matmul = product.inputs[0]
        if matmul is None or matmul.op != "matmul" or matmul.dtype != "int32":
            continue
        x, w = (_operand(side) for side in matmul.inputs)
        scales = [s for s in scale.inputs if s is not None]
        if x is None or w is None or w.integers.op != "const" or len(scales) != 2:
            continue
        fixed = [s for s in scales if s.op == "const"]
        if not fixed:
            continue
        w_scale = max(fixed, key=lambda s: len(s.shape or ()))
        (x_scale,) = [s for s in scales if s is not w_scale]
        if x_scale.shape == ():
            return _Product(x, w, x_scale, w_scale)
    return None


def _operand(value: Value | None) -> _Operand | None:
    """The integers behind a cast, less their zero point."""
    if value is not None and value.op == "cast" and value.inputs[0] is not None:
        return _Operand(value.inputs[0], None)
    if value is None or value.op != "sub":
        return None
    integers, zero = value.inputs
    if integers is None or zero is None or integers.op != "cast" or zero.op != "cast":
        return None
    if integers.inputs[0] is None or zero.inputs[0] is None or zero.shape != ():
        return None
    return _Operand(integers.inputs[0], zero.inputs[0])

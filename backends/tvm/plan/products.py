"""Integer products spelled out in integers, written as products of rounded floats.

ONNX Runtime's dynamic quantizer, and com.microsoft.MatMulIntegerToFloat, give
cast(matmul(q - zero, w)) * (scale * w_scale). Recognisers know it as matmul(dequantize(q), dequantize(w)),
which is the same number; no float product is computed unless no kernel takes it.

Rows that the graph scales by their largest magnitude (x / r goes in, and what comes out is multiplied by r)
are what DynamicQuantizeLinear of x means here, where kernels round each row by itself; so that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax

from ....ir.values import Value
from ..frontend.node import Node
from ..frontend.onnx_integers import dynamic_quantize_linear
from .rebuild import bindings, over, with_kernels
from .view import RelaxView


@dataclass(frozen=True)
class _Scaled:
    """integers and the zero point that is taken off them, None for none."""

    integers: Value
    zero: Value | None


@dataclass(frozen=True)
class _Rescaled:
    """x and w as integers; the scales of both. folded: w_scale is the product of both. rows: the floats that
    were scaled by row, where the value is the product times what they were divided by."""

    x: _Scaled
    w: _Scaled
    x_scale: Value
    w_scale: Value
    folded: bool = False
    rows: Value | None = None


def as_floats(module: Any) -> Any:
    """The module with every integer product that is rescaled to floats written that way."""
    main = module["main"]
    view = RelaxView(main)
    found: dict[Value, _Rescaled] = {
        value: product for value in view.values if (product := _product(value)) is not None
    }
    found |= {value: rows for value in view.values if (rows := _by_row(value, found)) is not None}
    if not found:
        return module
    builder = relax.BlockBuilder()
    made = {parameter: relax.Var(str(parameter.name), parameter.ty) for parameter in main.params}
    known: dict[Any, Any] = {}

    def read(value: Value) -> Any:
        return made.get(value.native, value.native)

    def floats(operand: _Scaled, scale: Value, axis: int) -> Any:
        if operand not in known:
            zero = read(operand.zero) if operand.zero is not None else relax.const(0, operand.integers.dtype)
            call = relax.op.dequantize(
                read(operand.integers), read(scale), zero, axis=axis, out_dtype="float32"
            )
            known[operand] = builder.emit(call)
        return known[operand]

    def by_row(source: Value) -> Any:
        if source not in known:
            node = Node("DynamicQuantizeLinear", [read(source)], {}, builder, ())
            integers, scale, zero = dynamic_quantize_linear(node).fields
            call = relax.op.dequantize(integers, scale, zero, axis=-1, out_dtype="float32")
            known[source] = builder.emit(call)
        return known[source]

    def weights(product: _Rescaled) -> Any:
        if not product.folded:
            return floats(product.w, product.w_scale, -1)
        both, scale = product.w_scale.const, product.x_scale.const
        assert both is not None
        assert scale is not None
        own = relax.const((both / scale).astype("float32"))
        zero = relax.const(0, product.w.integers.dtype)
        integers = read(product.w.integers)
        return builder.emit(relax.op.dequantize(integers, own, zero, axis=-1, out_dtype="float32"))

    with builder.function("main", list(made.values())):
        with builder.dataflow():
            for binding in bindings(main):
                product = found.get(view.of(binding.var)) if binding.var in view else None
                if product is None:
                    made[binding.var] = builder.emit(over(binding.value, lambda v: made[v]))
                    continue
                source = product.rows
                x = floats(product.x, product.x_scale, -1) if source is None else by_row(source)
                made[binding.var] = builder.emit(relax.op.matmul(x, weights(product)))
            result = builder.emit_output(over(main.body.body, lambda v: made[v]))
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination()(with_kernels(builder.get(), module))


def _product(value: Value) -> _Rescaled | None:
    """The rescaled product that a value is."""
    if value.op != "mul" or value.dtype != "float32":
        return None
    for product, scale in (value.inputs, value.inputs[::-1]):
        if product is None or scale is None or product.op != "cast" or scale.op not in ("mul", "const"):
            continue
        matmul = product.inputs[0]
        if matmul is None or matmul.op != "matmul" or matmul.dtype != "int32":
            continue
        x, w = (_operand(side) for side in matmul.inputs)
        if x is None or w is None or w.integers.op != "const":
            continue
        if scale.op == "const":
            x_scale = x.integers.inputs[1] if x.integers.op == "quantize_linear" else None
            if x_scale is not None and x_scale.op == "const" and x_scale.shape == () and w.zero is None:
                return _Rescaled(x, w, x_scale, scale, folded=True)
            continue
        scales = [s for s in scale.inputs if s is not None]
        if len(scales) != 2:
            continue
        fixed = [s for s in scales if s.op == "const"]
        if not fixed:
            continue
        w_scale = max(fixed, key=lambda s: len(s.shape or ()))
        (x_scale,) = [s for s in scales if s is not w_scale]
        if x_scale.shape == ():
            return _Rescaled(x, w, x_scale, w_scale)
    return None


def _by_row(value: Value, found: Mapping[Value, _Rescaled]) -> _Rescaled | None:
    """The product of x that a value is: of x / r, times r, where r is the largest magnitude of each row."""
    if value.op != "mul":
        return None
    for scaled, largest in (value.inputs, value.inputs[::-1]):
        product = found.get(scaled) if scaled is not None else None
        if product is None or largest is None or product.x.integers.op != "quantize_linear":
            continue
        divided = product.x.integers.inputs[0]
        if divided is None or divided.op != "div" or divided.inputs[1] != largest:
            continue
        source = divided.inputs[0]
        if source is not None and _largest(largest, source) and len(scaled.users if scaled else ()) == 1:
            return replace(product, rows=source)
    return None


def _largest(value: Value, x: Value) -> bool:
    """Whether a value is max(max|x| over the last axis, a constant)."""
    if value.op != "maximum" or x.shape is None:
        return False
    for most, floor in (value.inputs, value.inputs[::-1]):
        if most is None or floor is None or most.op != "max" or floor.op != "const":
            continue
        size = most.inputs[0]
        if most.attrs.get("axes") == (len(x.shape) - 1,) and size is not None and size.op == "abs":
            return size.inputs[0] == x
    return False


def _operand(value: Value | None) -> _Scaled | None:
    """The integers behind a cast, less their zero point."""
    if value is not None and value.op == "cast" and value.inputs[0] is not None:
        return _Scaled(value.inputs[0], None)
    if value is None or value.op != "sub":
        return None
    integers, zero = value.inputs
    if integers is None or zero is None or integers.op != "cast" or zero.op != "cast":
        return None
    if integers.inputs[0] is None or zero.inputs[0] is None or zero.shape != ():
        return None
    return _Scaled(integers.inputs[0], zero.inputs[0])

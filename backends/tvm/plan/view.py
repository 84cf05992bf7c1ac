"""The view over a Relax function, so that the recognisers of ir/blocks find attention and norms in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from ....ir.values import GraphValue, GraphView
from .view_ops import RULES, ViewCall


class RelaxView(GraphView):
    """The values of one Relax function of static shapes, in dataflow form.

    A value's native is its relax.Var, or the constant expression itself. Results of an operator that gives a
    tuple are the variables that TupleGetItem binds.
    """

    dialect = "relax"

    def __init__(self, function: relax.Function) -> None:
        super().__init__()
        for parameter in function.params:
            self.inputs.append(self.add(_value(parameter, str(parameter.name), "input")))
        for block in function.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        body = function.body.body
        fields = body.fields if isinstance(body, relax.Tuple) else [body]
        results = self._results.get(body) if isinstance(body, relax.Var) else None
        self.outputs = [self._operand(field) for field in (results or fields)]

    _results: dict[Any, Any]

    def _bind(self, var: relax.Var, value: Any) -> None:
        if not hasattr(self, "_results"):
            self._results = {}
        name = str(var.name)
        if isinstance(value, relax.Tuple):
            self._results[var] = list(value.fields)
        elif isinstance(value, relax.TupleGetItem):
            self._item(var, value)
        elif isinstance(value, relax.Var) and value in self._results:
            self._results[var] = self._results[value]
        elif isinstance(value, relax.Var):
            self.add(_value(var, name, "identity", [self._operand(value)]))
        elif isinstance(value, tvm.ir.Call):
            self._call(var, value)
        else:
            self.add(_constant(var, value, name))

    def _call(self, var: relax.Var, call: tvm.ir.Call) -> None:
        operator = getattr(call.op, "name", "relax.call")
        arguments = list(call.args)
        if operator == "relax.call_tir":  # operands follow in a tuple behind the kernel's name
            arguments = list(arguments[1].fields)
        arguments = [
            a for given in arguments for a in (given.fields if isinstance(given, relax.Tuple) else [given])
        ]
        operands = [self._operand(a) for a in arguments if isinstance(a, relax.Var) or _is_constant(a)]
        if not isinstance(var.ty, relax.TensorType):
            self._results[var] = (operator, operands, call)
            return
        rule = RULES.get(operator)
        spec = rule(ViewCall(call, operands, _shape(var))) if rule else None
        op, inputs, attrs = spec or (operator, operands, {})
        self.add(_value(var, str(var.name), op, inputs, attrs))

    def _item(self, var: relax.Var, value: Any) -> None:
        """One result of an operator with several, or one field of a tuple."""
        source = self._results.get(value.tuple_value)
        index = int(value.index)
        if isinstance(source, list):
            self.add(_value(var, str(var.name), "identity", [self._operand(source[index])]))
            return
        operator, operands, call = source if source is not None else ("relax.tuple", [], None)
        rule = RULES.get(operator)
        spec = rule(ViewCall(call, operands, _shape(var))) if rule else None
        op, inputs, attrs = spec or (operator, operands, {})
        self.add(_value(var, str(var.name), op, inputs, attrs, index))

    def _operand(self, expression: Any) -> GraphValue:
        if expression in self._of:
            return self._of[expression]
        return self.add(_constant(expression, expression, f"const{len(self.values)}"))


def _is_constant(expression: Any) -> bool:
    return type(expression).__name__ == "GenericConst"


def _shape(expression: Any) -> tuple[int, ...] | None:
    shape = getattr(expression.ty, "shape", None)
    return None if shape is None else tuple(int(d) for d in shape)


def _value(var: Any, name: str, op: str, inputs: Any = (), attrs: Any = None, index: int = 0) -> GraphValue:
    dtype = str(var.ty.dtype) if isinstance(var.ty, relax.TensorType) else None
    return GraphValue(var, name, op, inputs, attrs, index, _shape(var), dtype)


def _constant(native: Any, expression: Any, name: str) -> GraphValue:
    value = _value(native, name, "const")
    data = getattr(expression, "value", None)
    if data is not None:
        value.load = lambda: np.asarray(data.numpy())
        value.tensor = data
    return value

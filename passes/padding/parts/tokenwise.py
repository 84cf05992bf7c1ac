"""Which operations act on every token by itself, so that they may run on any subset of the tokens.

A *token value* is a tensor (batch, length, features) or, for ids, (batch, length), whose first two axes are
those of the attention mask; or the same flattened to (batch * length, features). An operation is token-wise
when each output token depends on the same token of its token operands and on nothing else that varies along
batch or length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

ELEMENTWISE = frozenset(
    "Abs Add And BiasGelu Cast Ceil Clip Cos Div Dropout Elu Equal Erf Exp FastGelu Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min "
    "Mish Mul Neg Not Or Pow QuickGelu Reciprocal Relu Round Sigmoid Sign Sin Softplus "
    "Sqrt Sub Sum Tanh Where".split()
)
# Over the last axis only, which is what their default or checked axis says.
LAST_AXIS = frozenset(
    "LayerNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization "
    "SkipSimplifiedLayerNormalization Softmax LogSoftmax Split Concat".split()
)
REDUCTIONS = frozenset("ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceSumSquare".split())
DOMAINS = frozenset({"", "com.microsoft"})


@dataclass(frozen=True)
class Axes:
    """The mask's own two axes, by symbol name. flat: the flattened token values met so far."""

    batch: str
    length: str
    flat: set[ir.Value] = field(default_factory=set)

    def dims(self, value: ir.Value | None) -> list[int | str | None] | None:
        if value is None or value.shape is None:
            return None
        return [dim if isinstance(dim, int) else dim.value for dim in value.shape]

    def is_token_value(self, value: ir.Value | None) -> bool:
        dims = self.dims(value)
        return dims is not None and len(dims) in (2, 3) and dims[:2] == [self.batch, self.length]

    def operand(self, value: ir.Value | None) -> str | None:
        """How a value meets token values: "tokens", "by position" (1, length, f), "by row" (batch, 1, f),
        "same" for all tokens, or None where it does not fit."""
        dims = self.dims(value)
        if dims is None:
            return None
        if value in self.flat:
            return "tokens"
        if len(dims) == 3 and dims[:2] == [self.batch, self.length]:
            return "tokens"
        if len(dims) == 3 and dims[:2] == [1, self.length]:
            return "by position"
        if len(dims) == 3 and dims[:2] == [self.batch, 1]:
            return "by row"
        if len(dims) <= 3 and all(dim == 1 for dim in dims[:-1]) and isinstance((dims or [1])[-1], int):
            return "same"
        return None


def constant(value: ir.Value | None) -> bool:
    return value is not None and (value.is_initializer() or value.const_value is not None)


def token_operands(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    """Operand kinds by input index if the node is token-wise, else None.

    Only the inputs that vary between tokens are listed ("ids", "tokens", "by position", "by row").
    """
    if node.domain not in DOMAINS or not all(out.shape is not None for out in node.outputs if out.uses()):
        return None
    rule = _RULES.get(node.op_type, _elementwise if node.op_type in ELEMENTWISE else None)
    kinds = rule(node, axes) if rule else None
    if not kinds or not any(kind in ("tokens", "ids") for kind in kinds.values()):
        return None
    axes.flat.update(out for out in node.outputs if out.shape is not None and len(out.shape) == 2)
    return kinds


def _elementwise(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    kinds, flat = {}, any(value in axes.flat for value in node.inputs)
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        kind = axes.operand(value)
        if kind is None or (
            flat and value not in axes.flat and (kind != "same" or len(value.shape or ()) > 2)
        ):
            return None
        if kind != "same":
            kinds[position] = kind
    return kinds if flat or axes.operand(node.outputs[0]) == "tokens" else None


def _last_axis(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    axis = node.attributes.get_int("axis", 0 if node.op_type == "Split" else -1)
    last = 1 if node.inputs[0] in axes.flat else 2
    return _with_parameters(node, axes) if axis in (-1, last) else None


def _with_parameters(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    """Parameters (weights, sizes) are constants of rank one and say nothing about tokens."""
    kinds = {}
    for position, value in enumerate(node.inputs):
        if value is None or (constant(value) and len(value.shape or ()) <= 1):
            continue
        kind = axes.operand(value)
        if kind != "tokens":
            return None
        kinds[position] = kind
    return kinds


def _matmul(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    rows, weight = node.inputs[:2]
    weight_dims = axes.dims(weight)
    if axes.operand(rows) != "tokens" or weight_dims is None or len(weight_dims) != 2:
        return None
    return {0: "tokens"} if all(isinstance(dim, int) for dim in weight_dims) else None


def _gemm(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    rows, weight, *bias = node.inputs
    if rows not in axes.flat or node.attributes.get_int("transA", 0) != 0 or weight is None:
        return None
    fits = all(axes.operand(value) == "same" for value in bias if value is not None)
    return {0: "tokens"} if fits and len(weight.shape or ()) == 2 else None


def _reshape(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    """Flattening batch and length into one axis, and back."""
    value, out = node.inputs[0], node.outputs[0]
    before, after = axes.dims(value), axes.dims(out)
    if not before or not after or before[-1] != after[-1] or not isinstance(after[-1], int):
        return None
    flattens = axes.operand(value) == "tokens" and len(before) == 3 and len(after) == 2
    restores = value in axes.flat and len(after) == 3 and axes.operand(out) == "tokens"
    return {0: "tokens"} if flattens or restores else None


def _lookup(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    """Gather of a table's rows by (batch, length) ids."""
    table, ids = node.inputs[:2]
    dims = axes.dims(ids)
    if (
        table is None
        or not constant(table)
        or len(table.shape or ()) != 2
        or node.attributes.get_int("axis", 0) != 0
    ):
        return None
    return {1: "ids"} if dims == [axes.batch, axes.length] else None


def _reduction(node: ir.Node, axes: Axes) -> dict[int, str] | None:
    reduced = node.attributes.get_ints("axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        reduced = tuple(tensor.numpy().reshape(-1).tolist()) if tensor is not None else ()
    if node.attributes.get_int("keepdims", 1) != 1 or list(reduced) not in ([-1], [2]):
        return None
    return {0: "tokens"} if axes.operand(node.inputs[0]) == "tokens" else None


_RULES: dict[str, Callable[[ir.Node, Axes], dict[int, str] | None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Reshape": _reshape,
    "Gather": _lookup,
    **dict.fromkeys(LAST_AXIS, _last_axis),
    **dict.fromkeys(REDUCTIONS, _reduction),
}

"""What a small part of a graph computes, with numbers for its symbols: scalars, masks, activations.

Recognition asks questions such as "is this number 1/sqrt(head size)?", "does this mask hide later
positions?" or "is this expression GELU?". Running the few operators involved answers them whatever their
spelling.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..values import Value

LARGEST = 1 << 24  # elements of a constant worth reading for an answer
DEFAULT_SIZE = 6  # of a symbol that nobody bound


class Unknown(Exception):  # noqa: N818 - an answer, not an error
    """The part holds something that is not understood. node, op: which."""

    def __init__(self, value: Value, why: str = "") -> None:
        self.node, self.op = value.name, value.op
        super().__init__(f"{value.op} ({value.name}) {why or 'is not understood'}")


def scalar(value: Value | None) -> float | None:
    """The number that a value always is: one constant element, or arithmetic on such and static sizes."""
    if value is None or value.op == "input" or (value.shape is not None and not _single(value.shape)):
        return None
    if value.op == "const":
        data = value.const
        return None if data is None or data.size != 1 or data.dtype.kind in "OSUV" else float(data.item())
    try:
        result = evaluate(value, symbols=None, budget=40)
    except Unknown:
        return None
    return float(result.item()) if result.size == 1 else None


def evaluate(
    value: Value,
    feeds: Mapping[Value, np.ndarray] | None = None,
    symbols: Mapping[str, int] | None = None,
    budget: int = 4000,
) -> np.ndarray:
    """Compute a value.

    Args:
        value: what to compute.
        feeds: values already known, graph inputs among them.
        symbols: sizes of symbolic axes; unlisted ones get DEFAULT_SIZE. None: no symbol may matter.
        budget: how many operators may be involved.

    Raises:
        Unknown: an operator, or a size, that cannot be computed.
    """
    known: dict[Value, np.ndarray] = dict(feeds or {})
    stack = [value]
    while stack:
        top = stack[-1]
        if top in known:
            stack.pop()
            continue
        needed = [v for v in _needed(top, symbols) if v not in known]
        if needed:
            stack += needed
            budget -= len(needed)
            if budget < 0:
                raise Unknown(value, "takes too many operators")
            continue
        known[stack.pop()] = _compute(top, known, symbols)
    return known[value]


def _single(shape: Sequence[Any]) -> bool:
    return all(d == 1 or d is None for d in shape)


def _needed(value: Value, symbols: Mapping[str, int] | None) -> list[Value]:
    if value.op in ("dim", "shape") and _sizes(value.inputs[0], symbols, value.attrs) is not None:
        return []
    if value.op not in OPERATORS and value.op not in ("const", "input"):
        raise Unknown(value)
    return [v for v in value.inputs if v is not None]


def _compute(
    value: Value, known: Mapping[Value, np.ndarray], symbols: Mapping[str, int] | None
) -> np.ndarray:
    if value.op == "const":
        if value.shape is not None and math.prod(d for d in value.shape if isinstance(d, int)) > LARGEST:
            raise Unknown(value, "is a large table")
        data = value.const
        if data is None:
            raise Unknown(value, "has no data")
        return np.asarray(data)
    if value.op == "input":
        raise Unknown(value, "is given at run time")
    if value.op in ("dim", "shape"):
        sizes = _sizes(value.inputs[0], symbols, value.attrs)
        if sizes is None:
            sizes = list(known[value.inputs[0]].shape)  # type: ignore[index]
        if value.op == "dim":
            return np.asarray(sizes[value.attrs["axis"]], np.int64)
        return np.asarray(sizes[value.attrs.get("start", 0) : value.attrs.get("end")], np.int64)
    operands = [None if v is None else known[v] for v in value.inputs]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(
                OPERATORS[value.op](operands, value.attrs, lambda: partial_shape(value, symbols))
            )
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError) as cause:
        raise Unknown(value, f"cannot be computed: {cause}") from cause


def _sizes(
    value: Value | None, symbols: Mapping[str, int] | None, attrs: Mapping[str, Any]
) -> list[Any] | None:
    """The sizes that a dim or shape asks for, None where the asked ones are unknown."""
    if value is None or value.shape is None:
        return None
    sizes = [size(d, symbols) for d in value.shape]
    asked = [sizes[attrs["axis"]]] if "axis" in attrs else sizes[attrs.get("start", 0) : attrs.get("end")]
    return None if None in asked else sizes


def shape_of(value: Value, symbols: Mapping[str, int] | None) -> tuple[int, ...]:
    """A value's shape in numbers. Raises Unknown when an axis has none."""
    sizes = None if value.shape is None else [size(d, symbols) for d in value.shape]
    if sizes is None or None in sizes:
        raise Unknown(value, "has an unknown shape")
    return tuple(s for s in sizes if s is not None)


def size(dim: Any, symbols: Mapping[str, int] | None) -> int | None:
    """A dimension in numbers: an int, a symbol, or sums and products of symbols ("2*length + 1")."""
    if isinstance(dim, int) or dim is None:
        return dim
    if symbols is None:
        return None
    try:
        return _arithmetic(ast.parse(dim, mode="eval").body, symbols)
    except (SyntaxError, KeyError):
        return symbols.get(dim, DEFAULT_SIZE)


def _arithmetic(node: ast.AST, symbols: Mapping[str, int]) -> int:
    if isinstance(node, ast.BinOp):
        operation = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}.get(
            type(node.op), operator.floordiv
        )
        return operation(_arithmetic(node.left, symbols), _arithmetic(node.right, symbols))
    if isinstance(node, ast.UnaryOp):
        return -_arithmetic(node.operand, symbols)
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return symbols.get(node.id, DEFAULT_SIZE)
    raise KeyError(ast.dump(node))


def partial_shape(value: Value, symbols: Mapping[str, int] | None) -> list[int | None]:
    """A value's shape in numbers, None where an axis has none. Raises Unknown without so much as a rank."""
    if value.shape is None:
        raise Unknown(value, "has an unknown rank")
    return [size(d, symbols) for d in value.shape]


Shape = Callable[[], list[int | None]]
Operator = Callable[[Sequence[Any], Mapping[str, Any], Shape], Any]

_erf = np.vectorize(math.erf, otypes=[float])


def gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _slice(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    x, axis = o[0], a["axis"]
    start, end, step = a["start"], a["end"], a["step"] or 1
    if start is None or end is None:  # a size given at run time: the result's own says how much is kept
        if start is None:
            raise ValueError("dynamic start")
        kept = shape()[axis]
        if kept is None:
            raise ValueError("dynamic end")
        end = start + kept * step
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _split(o: Sequence[Any], a: Mapping[str, Any], index: int) -> np.ndarray:
    sizes = a["sizes"]
    start = sum(sizes[:index])
    return np.take(o[0], range(start, start + sizes[index]), axis=a["axis"])


def _index(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    key: list[Any] = [slice(None)] * o[0].ndim
    for axis, chosen in zip(a["axes"], o[1:], strict=True):
        key[axis] = chosen
    return o[0][tuple(key)]


def _clip(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    low, high = ([*o[1:], None, None])[:2]
    x = o[0] if low is None else np.maximum(o[0], low)
    return x if high is None else np.minimum(x, high)


def _full(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    target: Any = a.get("shape")
    return np.full(shape() if target is None or None in target else target, a["value"])  # type: ignore[arg-type]


def _reshape(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    return o[0].reshape([-1 if s is None else s for s in shape()])  # ValueError when two are unknown


def _unsqueeze(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    return np.expand_dims(o[0], tuple(a["axes"]))


def _expand(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    """An axis whose target is unknown stays as it is: what it meets later broadcasts it."""
    target = shape()
    own = (1,) * (len(target) - o[0].ndim) + o[0].shape
    wanted = [have if want is None else want for have, want in zip(own, target, strict=True)]
    return np.broadcast_to(o[0], np.broadcast_shapes(own, tuple(wanted)))


def _reduce(function: Any) -> Operator:
    return lambda o, a, shape: function(o[0], axis=tuple(a["axes"]), keepdims=a["keepdim"])


def _unary(function: Any) -> Operator:
    return lambda o, a, shape: function(o[0])


def _binary(function: Any) -> Operator:
    return lambda o, a, shape: function(o[0], o[1])


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a // b if a.dtype.kind in "iu" and b.dtype.kind in "iu" else a / b


def _cast(o: Sequence[Any], a: Mapping[str, Any], shape: Shape) -> np.ndarray:
    kind = "float32" if a["to"] in ("bfloat16",) else a["to"]
    return o[0].astype(kind)


OPERATORS: dict[str, Operator] = {
    **{
        name: _unary(function)
        for name, function in {
            "identity": lambda x: x, "dropout": lambda x: x, "neg": np.negative, "abs": np.abs, "exp": np.exp,
            "log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "erf": _erf, "tanh": np.tanh,
            "reciprocal": lambda x: 1 / x, "sigmoid": sigmoid, "relu": lambda x: np.maximum(x, 0),
            "silu": lambda x: x * sigmoid(x), "softplus": lambda x: np.log1p(np.exp(x)), "sin": np.sin,
            "cos": np.cos, "not": np.logical_not, "isnan": np.isnan, "floor": np.floor, "sign": np.sign,
        }.items()
    },
    **{
        name: _binary(function)
        for name, function in {
            "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide, "pow": np.power,
            "maximum": np.maximum, "minimum": np.minimum, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
            "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "matmul": np.matmul,
            "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
            "embedding": lambda table, ids: table[ids],
        }.items()
    },
    "mean": _reduce(np.mean),
    "sum": _reduce(np.sum),
    "max": _reduce(np.max),
    "min": _reduce(np.min),
    "gelu": lambda o, a, shape: gelu(o[0], a["approximate"]),
    "clip": _clip,
    "where": lambda o, a, shape: np.where(o[0].astype(bool), o[1], o[2]),
    "cast": _cast,
    "reshape": _reshape,
    "transpose": lambda o, a, shape: np.transpose(o[0], a["perm"]),
    "unsqueeze": _unsqueeze,
    "squeeze": lambda o, a, shape: np.squeeze(o[0], tuple(a["axes"])),
    "expand": _expand,
    "concat": lambda o, a, shape: np.concatenate(o, a["axis"]),
    "stack": lambda o, a, shape: np.stack(o, a["axis"]),
    "slice": _slice,
    "select": lambda o, a, shape: np.take(o[0], a["index"], axis=a["axis"]),
    "gather": lambda o, a, shape: np.take(o[0], o[1], axis=a["axis"]),
    "gather_elements": lambda o, a, shape: np.take_along_axis(o[0], o[1], axis=a["axis"]),
    "index": _index,
    "ai.onnx::GatherND": lambda o, a, shape: o[0][tuple(np.moveaxis(o[1], -1, 0))],
    "range": lambda o, a, shape: np.arange(o[0], o[1], o[2]),
    "full": _full,
    "cumsum": lambda o, a, shape: np.cumsum(o[0], axis=a["axis"]),
    "tril": lambda o, a, shape: np.tril(o[0], a.get("diagonal", 0)),
    "triu": lambda o, a, shape: np.triu(o[0], a.get("diagonal", 0)),
    "softmax": lambda o, a, shape: _softmax(o[0], a["axis"]),
    "dim": lambda o, a, shape: o[0],
    "shape": lambda o, a, shape: o[0],
}  # fmt: skip


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)

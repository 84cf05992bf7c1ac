"""What a small part of a graph computes, with numbers for its symbols: scalars, masks, activations.

Recognition asks questions such as "is this number 1/sqrt(head size)?", "does this mask hide later
positions?" or "is this expression GELU?". Running the few operators involved answers them whatever their
spelling.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..values import Value
from .table import OPERATORS

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


def computable(op: str) -> bool:
    """Whether an operator's results are computed from its operands by a row of the table."""
    return op in OPERATORS and OPERATORS[op].compute is not None


def _single(shape: Sequence[Any]) -> bool:
    return all(d == 1 or d is None for d in shape)


def _needed(value: Value, symbols: Mapping[str, int] | None) -> list[Value]:
    if value.op in ("dim", "shape") and _sizes(value.inputs[0], symbols, value.attrs) is not None:
        return []
    if value.op not in ("const", "input") and not computable(value.op):
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
        asked = _sizes(value.inputs[0], symbols, value.attrs)
        if asked is not None:
            return np.asarray(asked[0] if value.op == "dim" else asked, np.int64)
    compute = OPERATORS[value.op].compute
    if compute is None:
        raise Unknown(value)
    operands = [None if v is None else known[v] for v in value.inputs]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(compute(operands, value.attrs, lambda: partial_shape(value, symbols)))
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError) as cause:
        raise Unknown(value, f"cannot be computed: {cause}") from cause


def _sizes(
    value: Value | None, symbols: Mapping[str, int] | None, attrs: Mapping[str, Any]
) -> list[Any] | None:
    """The sizes that a dim or shape asks for, None where one of them is unknown."""
    if value is None or value.shape is None:
        return None
    sizes = [size(d, symbols) for d in value.shape]
    asked = [sizes[attrs["axis"]]] if "axis" in attrs else sizes[attrs.get("start", 0) : attrs.get("end")]
    return None if None in asked else asked


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

"""What finally reads a graph input, and which values of it that lets be: rows of tables, sizes of axes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..ops.evaluate import scalar, size
from ..values import Dim, GraphValue

# What carries an input along, whole or in part.
_CARRY = frozenset(
    "cast identity reshape unsqueeze squeeze expand transpose slice select split tile concat stack clip "
    "contiguous where".split()
)
_SCALES = frozenset("mul div floor ceil round neg abs pow remainder".split())
_SCALING = ("floor_divide", "div.Tensor_mode", "remainder", "::Mod", "bitwise_right_shift", "trunc")
_COMPARES = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "eq": "eq", "ne": "eq"}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq"}
_LARGEST = 1 << 16  # elements of a constant that may be a row of positions


@dataclass(frozen=True)
class Use:
    """An operation that does something with an input.

    reader: it. operand: what it reads, the input or what carries it. position: of that operand.
    offset: what was added on the way; None where it was changed otherwise.
    """

    reader: GraphValue
    operand: GraphValue
    position: int
    offset: int | None


@dataclass(frozen=True)
class Range:
    """Values from `low` to below `size` + `reach`. table: they number rows of a constant. indexes: they, or
    what is computed from them, index an axis."""

    size: int | str
    low: int
    reach: int
    table: bool = False
    indexes: bool = True


def uses(value: GraphValue) -> Iterator[Use]:
    """What reads an input, seen through operations that only carry it along or add a number to it."""
    stack: list[tuple[GraphValue, int | None]] = [(value, 0)]
    seen = set(stack)
    while stack:
        top, offset = stack.pop()
        for user in top.users:
            for position, operand in enumerate(user.inputs):
                if operand is None or operand != top:
                    continue
                step = _step(user, position, offset)
                if step is None:
                    yield Use(user, top, position, offset)
                elif (user, step[0]) not in seen:
                    seen.add((user, step[0]))
                    stack.append((user, step[0]))


def _step(user: GraphValue, position: int, offset: int | None) -> tuple[int | None] | None:
    """(the offset behind an operation that carries its operand on); None where it does something with it."""
    if user.op in _CARRY:
        return None if user.op == "where" and position == 0 else (offset,)
    if user.op in ("add", "sub") and len(user.inputs) == 2:
        number = scalar(user.inputs[1 - position])
        if number is None or number != int(number):
            return None
        if offset is None or (user.op == "sub" and position == 1):
            return (None,)
        return (offset + int(number) * (1 if user.op == "add" else -1),)
    if user.op in _SCALES or any(name in user.op for name in _SCALING):
        numbers = [v for i, v in enumerate(user.inputs) if i != position]
        return (None,) if all(scalar(v) is not None for v in numbers) else None
    return None


def ranges(value: GraphValue) -> list[Range]:
    """What the graph says of an integer input's values: that they are looked up, that they index an axis, or
    that positions are compared with them."""
    found = []
    for use in uses(value):
        one = _indexed(use) or _compared(use)
        if one is not None:
            found.append(one)
    return found


def _indexed(use: Use) -> Range | None:
    reader, data = use.reader, use.reader.inputs[0]
    if data is None or data.shape is None or use.position == 0 or use.operand.dtype == "bool":
        return None
    axis = _axis(use)
    if axis is None or not -len(data.shape) <= axis < len(data.shape):
        return None
    dim = data.shape[axis]
    known = _linear(dim)
    if use.offset is None or known is None or known[1] is None:
        return None  # an index that was scaled may stay inside whatever it is
    base, more = known[0], known[1]
    table = isinstance(base, int) and (data.op == "const" or reader.op == "embedding")
    return Range(base, -use.offset, more - use.offset, table)


def _axis(use: Use) -> int | None:
    """The axis of the first operand that an operand indexes; None where it does nothing of the kind."""
    reader = use.reader
    if reader.op == "embedding":
        return 0
    if reader.op in ("gather", "gather_elements") and use.position == 1:
        return int(reader.attrs["axis"])
    if reader.op == "index":
        return int(reader.attrs["axes"][use.position - 1])
    if reader.op == "ai.onnx::GatherND" and use.position == 1:
        return int(reader.attrs.get("batch_dims", 0))
    if reader.op == "ai.onnx::ScatterElements" and use.position == 1:
        return int(reader.attrs.get("axis", 0))
    if reader.op.startswith(("aten.scatter", "aten.index_add", "aten.index_copy")) and use.position == 1:
        return int(reader.attrs.get("dim", 0))
    return None


def _compared(use: Use) -> Range | None:
    """Positions along an axis compared with an input: how many of them count, or which one."""
    kind = _COMPARES.get(use.reader.op)
    other = use.reader.inputs[1 - use.position] if len(use.reader.inputs) == 2 else None
    if kind is None or other is None:
        return None
    found = _positions(other)
    if found is None:
        return None
    dim, start = found
    if use.position == 0:
        kind = _MIRRORED[kind]  # positions stand on the left from here on
    counts = int(kind in ("lt", "ge"))
    known = _linear(dim)
    if known is None:
        return None
    base, more = known
    if use.offset is None or more is None:
        return Range(base, counts, counts, indexes=False)
    moved = start - use.offset
    return Range(base, counts + moved, more + counts + moved, indexes=False)


def _positions(value: GraphValue) -> tuple[Dim, int] | None:
    """(how many, the first) of consecutive numbers along an axis."""
    start = 0
    while value.op in _CARRY - {"concat", "stack", "where"} or value.op in ("add", "sub", "cumsum"):
        if value.op == "cumsum":
            return (value.shape or (None,))[value.attrs["axis"]], start + 1
        if value.op in ("add", "sub"):
            number = scalar(value.inputs[1])
            if number is None:
                return None
            start += int(number) * (1 if value.op == "add" else -1)
        before = value.inputs[0]
        if before is None:
            return None
        if before.op == "const":
            return _consecutive(before, value, start)
        value = before
    if value.op == "range":
        first, step = (scalar(v) for v in (value.inputs[0], value.inputs[2]))
        if step == 1 and first is not None and value.shape is not None:
            return value.shape[0], start + int(first)
    if value.op == "const":
        return _consecutive(value, value, start)
    return None


def _consecutive(table: GraphValue, shown: GraphValue, start: int) -> tuple[Dim, int] | None:
    """A stored row of positions, of which `shown` is a part from the start."""
    if table.shape is None or int(np.prod([d for d in table.shape if isinstance(d, int)])) > _LARGEST:
        return None
    data = table.const
    if (
        data is None
        or data.dtype.kind not in "iu"
        or data.size != max(data.shape, default=0)
        or data.size < 2
    ):
        return None
    row = data.reshape(-1)
    if (np.diff(row) != 1).any():
        return None
    dims = [dim for dim in shown.shape or () if dim != 1]
    return (dims[0], start + int(row[0])) if len(dims) == 1 else None


def _linear(dim: Dim) -> tuple[int | str, int | None] | None:
    """(symbol, number) of symbol + number; (symbol, None) of anything else of one symbol; (size, 0)."""
    if dim is None or isinstance(dim, int):
        return None if dim is None else (dim, 0)
    names = set(re.findall(r"[A-Za-z_]\w*", dim)) - {"Mod", "floor", "Min", "Max", "FloorDiv"}
    if len(names) != 1:
        return None
    (name,) = names
    if dim == name:
        return name, 0
    sizes = [_size(dim, {name: number}) for number in (50, 70)]
    if None not in sizes and sizes[1] - sizes[0] == 20:  # type: ignore[operator]
        return name, sizes[0] - 50  # type: ignore[operator]
    return name, None


def _size(dim: str, symbols: Mapping[str, int]) -> int | None:
    try:
        return size(dim, symbols)
    except (ZeroDivisionError, TypeError, ValueError):
        return None

"""Values out of a file as what they must be, or a ValueError. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..ir.errors import short

T = TypeVar("T")
MOST = 2**62  # of a size or a count: sums and products of two stay numbers that libraries take
DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 bfloat16 str".split()
)


def text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{short(value)} where a text is due")
    return value


def whole(value: Any, low: int = 0, high: int = MOST) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{short(value)} where a whole number from {low} to {high} is due")
    return value


def number(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{short(value)} where a number from {low:g} to {high:g} is due")
    return float(value)


def dtype(value: Any) -> str:
    if not isinstance(value, str) or value not in DTYPES:
        raise ValueError(f"{short(value)} where the name of a dtype is due")
    return value


def maybe(check: Callable[..., T], value: Any, *bounds: Any) -> T | None:
    return None if value is None else check(value, *bounds)


def many(check: Callable[[Any], T], value: Any) -> tuple[T, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{short(value)} where a list is due")
    return tuple(map(check, value))


def table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{short(value)} where an object is due")
    return value


def size(value: Any) -> int | str:
    """A dimension: a number, or the name of a symbol."""
    return text(value) if isinstance(value, str) else whole(value)

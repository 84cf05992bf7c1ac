"""Arithmetic on shapes, whose sizes may be symbols.

Only what follows for certain is told: an axis that could be two things is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from math import prod
from typing import Any

from ..values import Dim

Shape = tuple[Dim, ...]
Shapes = Sequence[Shape | None]
Attrs = Mapping[str, Any]
ShapeRule = Callable[[Shapes, Attrs, int], Shape | None]  # (operands' shapes, attributes, which result)
Known = Callable[[], Sequence[int | None]]  # the result's shape in numbers, None where an axis has none


def of_first(rule: Callable[[Shape, Shapes, Attrs, int], Shape | None]) -> ShapeRule:
    """A rule that starts from the first operand's shape, and tells nothing without it."""

    @wraps(rule)
    def told(shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
        first = shapes[0] if shapes else None
        return None if first is None else rule(first, shapes, attrs, index)

    return told


def concatenated(
    operands: Sequence[Any], shapes: Shapes, axis: int
) -> tuple[str, Sequence[Any], dict[str, Any]]:
    """A concatenation's operator, operands and attributes.

    Operands with nothing along the axis are left out: a rotation of every feature joins the none that it
    left alone.
    """
    full = [x for x, size in zip(operands, shapes, strict=True) if not size or size[axis : axis + 1] != (0,)]
    return ("identity", full, {}) if len(full) == 1 else ("concat", full or operands, {"axis": axis})


def merge(known: Shape | None, inferred: Shape | None, symbols: Collection[str]) -> Shape | None:
    """What the graph says, with unknown axes filled in.

    Args:
        symbols: the inputs' own. Exporters name axes inside the graph as they please ("Mul_7_dim_1"), so any
            other name yields to what is inferred.
    """
    if known is None or inferred is None or len(known) != len(inferred):
        return inferred if known is None else known
    return tuple(
        k if i is None or isinstance(k, int) or k in symbols else i
        for k, i in zip(known, inferred, strict=True)
    )


def broadcast(shapes: Shapes) -> Shape | None:
    """NumPy's rule, with symbols."""
    if any(s is None for s in shapes):
        return None
    sizes = [s for s in shapes if s is not None]
    rank = max((len(s) for s in sizes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in sizes]
    return tuple(meet(column) for column in zip(*padded, strict=True))


def meet(column: tuple[Dim, ...]) -> Dim:
    """The size of axes that are broadcast to each other, None where it depends on symbols."""
    wide = list(dict.fromkeys(d for d in column if d != 1))
    fixed = [d for d in wide if isinstance(d, int)]
    if not wide:
        return 1
    return fixed[0] if fixed else (wide[0] if len(wide) == 1 else None)


def factors(size: int | str) -> tuple[int, list[str]]:
    """A size as a number times symbols: "4*batch" is (4, ["batch"]); a sum counts as one symbol."""
    if isinstance(size, int):
        return size, []
    if not re.fullmatch(r"\w+(\*\w+)*", size):
        return 1, [size]
    parts = size.split("*")
    return prod(int(p) for p in parts if p.isdigit()), [p for p in parts if not p.isdigit()]


def reshaped(source: Shape | None, target: Sequence[Dim]) -> Shape:
    """The result of a reshape whose target may hold one -1, which symbols on both sides cancel from."""
    if -1 not in target:
        return tuple(target)
    free = list(target).index(-1)
    rest = [d for i, d in enumerate(target) if i != free]
    return tuple(_quotient(source, rest) if i == free else d for i, d in enumerate(target))


def _quotient(source: Shape | None, divisor: Sequence[Dim]) -> Dim:
    """The product of the sizes in `source` over that of `divisor`; None where it may not divide."""
    if source is None or None in (*source, *divisor):
        return None
    top, over = _product(source)
    bottom, under = _product(divisor)
    for symbol in under:
        if symbol not in over:
            return None
        over.remove(symbol)
    if not bottom or top % bottom:
        return None
    number = top // bottom
    symbols = sorted(over)
    return "*".join([str(number)] * (number != 1) + symbols) if symbols else number


def _product(sizes: Sequence[Dim]) -> tuple[int, list[str]]:
    parts = [factors(size) for size in sizes if size is not None]
    return prod(number for number, _ in parts), [symbol for _, symbols in parts for symbol in symbols]

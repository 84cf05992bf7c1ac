"""Einstein sums of two operands as a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import relax

Emit = Callable[[Any], Any]


def as_product(emit: Emit, equation: str, left: Any, right: Any) -> Any | None:
    """permute, reshape, matmul, reshape, permute; None where an operand repeats or alone holds a letter that
    the result lacks, or the equation has an ellipsis.

    Args:
        emit: binds an expression to a variable.
        equation: numpy.einsum's, "bihd,bjhd->bhij".
        left, right: relax expressions of static shapes.
    """
    terms, arrow, result = equation.replace(" ", "").partition("->")
    a, comma, b = terms.partition(",")
    if not arrow or not comma or "," in b or "." in equation:
        return None
    if any(len(set(term)) < len(term) for term in (a, b, result)):
        return None
    both = [letter for letter in a if letter in b]
    batch = [letter for letter in both if letter in result]
    summed = [letter for letter in both if letter not in result]
    rows = [letter for letter in a if letter not in b]
    columns = [letter for letter in b if letter not in a]
    if any(letter not in result for letter in rows + columns):
        return None
    size = dict(zip(a, _shape(left), strict=True)) | dict(zip(b, _shape(right), strict=True))
    x = _grouped(emit, left, a, [batch, rows, summed], size)
    y = _grouped(emit, right, b, [batch, summed, columns], size)
    product = emit(relax.op.matmul(x, y))
    letters = [*batch, *rows, *columns]
    whole = emit(relax.op.reshape(product, [size[letter] for letter in letters]))
    return emit(relax.op.permute_dims(whole, [letters.index(letter) for letter in result]))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in value.ty.shape.values)


def _grouped(emit: Emit, value: Any, letters: str, groups: list[list[str]], size: dict[str, int]) -> Any:
    """The value, its axes in the order of the groups: the first group's apart, each other group as one."""
    order = [letter for group in groups for letter in group]
    turned = emit(relax.op.permute_dims(value, [letters.index(letter) for letter in order]))
    apart = [size[letter] for letter in groups[0]]
    return emit(relax.op.reshape(turned, apart + [prod(size[letter] for letter in g) for g in groups[1:]]))

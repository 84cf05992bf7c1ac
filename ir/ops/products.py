"""Products: of rows by a matrix, of matrices, einsum, convolution."""

from __future__ import annotations

from collections.abc import Sequence

from ..values import Dim, GraphValue
from .axes import Atom, Merged, Term
from .coupled import Coupled
from .symbolic import Attrs, Shape, Shapes, broadcast, of_first


@of_first
def shape_matmul(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    second = shapes[1]
    if second is None or len(first) < 2 or len(second) < 2:
        return None
    batch = broadcast([first[:-2], second[:-2]])
    return None if batch is None else (*batch, first[-2], second[-1])


@of_first
def shape_linear(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    weight = shapes[1]
    return None if weight is None else (*first[:-1], weight[0 if attrs["transposed"] else 1])


@of_first
def shape_einsum(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    """Every letter's size, from a factor in which it is not an axis of one; an ellipsis is not followed."""
    terms, arrow, result = attrs["equation"].partition("->")
    if not arrow or "." in terms or None in shapes:
        return None
    sizes: dict[str, Dim] = {}
    for letters, shape in zip(terms.split(","), shapes, strict=True):
        for letter, size in zip(letters, shape or (), strict=True):
            if letter not in sizes or sizes[letter] in (1, None):
                sizes[letter] = size
    return tuple(sizes[letter] for letter in result)


@of_first
def shape_conv(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    kernel = shapes[1]
    if kernel is None:
        return None
    sizes: list[Dim] = []
    for size, reach, stride, pad, dilation in zip(
        first[2:], kernel[2:], attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
    ):
        if isinstance(size, int) and isinstance(reach, int):
            sizes.append((size + 2 * pad - dilation * (reach - 1) - 1) // stride + 1)
        else:
            sizes.append(size if (reach, stride, pad) == (1, 1, 0) else None)
    return (first[0], kernel[0], *sizes)


def shape_baddbmm(shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    return shape_matmul(shapes[1:], attrs, index)


def couple_baddbmm(c: Coupled, v: GraphValue) -> None:
    c.align(c.axes[v], c.of(v.inputs[0]))
    _couple_product(c, v, v.inputs[1:])


def couple_matmul(c: Coupled, v: GraphValue) -> None:
    _couple_product(c, v, v.inputs)


def _couple_product(c: Coupled, v: GraphValue, factors: Sequence[GraphValue | None]) -> None:
    a, b, out = c.of(factors[0]), c.of(factors[1]), c.axes[v]
    if len(a) < 2 or len(b) < 2:
        c.freeze(v, "a product with a vector")
        return
    c.same(a[-1], b[-2])
    c.same(out[-2], a[-2])
    c.same(out[-1], b[-1])
    c.align(out[:-2], a[:-2])
    c.align(out[:-2], b[:-2])
    if any(operand is not None and operand.op == "const" for operand in factors):
        c.hint(a[-1], "width")
    elif len(out) == 4:
        c.hint(out[1], "heads")
        c.hint(a[-1], "head_dim")
        c.hint(b[-1], "head_dim")


def couple_linear(c: Coupled, v: GraphValue) -> None:
    x, weight, out = c.of(v.inputs[0]), c.of(v.inputs[1]), c.axes[v]
    rows, columns = (1, 0) if v.attrs["transposed"] else (0, 1)
    c.same(x[-1], weight[rows])
    c.same(out[-1], weight[columns])
    for a, b in zip(x[:-1], out[:-1], strict=True):
        c.same(a, b)
    if len(v.inputs) > 2:
        c.align(out, c.of(v.inputs[2]))
    c.hint(x[-1], "width")


def couple_einsum(c: Coupled, v: GraphValue) -> None:
    equation = v.attrs["equation"]
    if "." in equation or "->" not in equation:
        c.freeze(v, f"the equation {equation} leaves axes out")
        return
    before, after = equation.split("->")
    letters: dict[str, Term | None] = dict(zip(after, c.axes[v], strict=True))
    for names, operand in zip(before.split(","), v.inputs, strict=True):
        for letter, term in zip(names, c.of(operand), strict=True):
            c.same(letters.setdefault(letter, term), term)
    if any(operand is not None and operand.op == "const" for operand in v.inputs):
        return
    for letter, term in letters.items():
        if all(letter in names for names in before.split(",")):
            c.hint(term, "heads" if letter in after else "head_dim")


def couple_conv(c: Coupled, v: GraphValue) -> None:
    """Channels only; positions are read through a window, so they are fixed."""
    x, weight, out, count = c.of(v.inputs[0]), c.of(v.inputs[1]), c.axes[v], v.attrs["groups"]
    for value, first in ((v.inputs[0], 2), (v.inputs[1], 2), (v, 2)):
        c.freeze_axes(value, range(first, len(out)), f"{v.name} slides a window along it")
    c.same(x[0], out[0])
    c.same(out[1], weight[0])
    if count == 1:
        c.same(x[1], weight[1])
    elif x[1] is not None and weight[0] is not None and weight[1] is not None:
        lanes = Atom(count)
        c.same(x[1], Merged((lanes, weight[1])))
        c.same(weight[0], Merged((lanes, Atom(weight[0].size // count))))
    if len(v.inputs) > 2:
        c.same(out[1], c.of(v.inputs[2])[0])

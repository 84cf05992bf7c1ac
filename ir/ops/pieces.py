"""Operators that join tensors along an axis or cut one along it: concat, stack, slice, split, select."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..values import END, Dim, GraphValue
from .axes import Concat, cut, fix
from .coupled import Coupled
from .symbolic import Attrs, Known, Shape, Shapes, meet, of_first


@of_first
def shape_concat(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    axis = attrs["axis"] % len(first) if first else 0
    known = [s for s in shapes if s is not None and len(s) == len(first)]
    if len(known) < len(shapes):
        return None
    total: Dim = 0
    for size in (s[axis] for s in known):
        total = total + size if isinstance(total, int) and isinstance(size, int) else None
    return tuple(total if i == axis else meet(column) for i, column in enumerate(zip(*known, strict=True)))


@of_first
def shape_slice(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    axis, start, end, step = (attrs[k] for k in ("axis", "start", "end", "step"))
    size: Dim = None
    if isinstance(first[axis], int) and None not in (start, end, step):
        size = len(range(first[axis])[start:end:step])
    elif (start, end, step) == (0, END, 1):
        size = first[axis]
    return tuple(size if i == axis % len(first) else d for i, d in enumerate(first))


@of_first
def shape_split(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    sizes = attrs["sizes"]
    size = sizes[index] if index < len(sizes) else None
    return tuple(size if i == attrs["axis"] % len(first) else d for i, d in enumerate(first))


@of_first
def shape_select(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return tuple(d for i, d in enumerate(first) if i != attrs["axis"] % len(first))


def couple_concat(c: Coupled, v: GraphValue) -> None:
    axis, pieces = v.attrs["axis"], [c.of(operand) for operand in v.inputs]
    parts = [piece[axis] for piece in pieces]
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        c.same(c.axes[v][axis], Concat(tuple(known)))
    for part in known if len(known) < len(parts) else ():
        fix(part, f"{v.name} joins it to an axis whose size is not static")
    for piece in pieces:
        for other, term in enumerate(piece):
            if other != axis:
                c.same(c.axes[v][other], term)


def couple_stack(c: Coupled, v: GraphValue) -> None:
    axis, out = v.attrs["axis"], c.axes[v]
    c.freeze_axes(v, [axis], f"{v.name} stacks along it")
    for operand in v.inputs:
        for a, b in zip((*out[:axis], *out[axis + 1 :]), c.of(operand), strict=True):
            c.same(a, b)


def _pieces(c: Coupled, v: GraphValue, axis: int, sizes: Sequence[int | None], at: int) -> None:
    """The result is piece `at` of the operand's axis, cut into `sizes`; its other axes are the operand's."""
    x, out = c.of(v.inputs[0]), c.axes[v]
    for other, term in enumerate(x):
        if other != axis:
            c.same(out[other], term)
    whole = x[axis]
    if whole is None:
        return
    if v.shape is not None and v.shape[axis] == 0:  # such as what a rotation of everything leaves over
        return
    static = [size for size in sizes if size is not None]
    pieces = cut(whole, static) if len(static) == len(sizes) else None
    if pieces is None:
        fix(whole, f"{v.name} cuts it at a position that is not static")
        c.freeze_axes(v, [axis], f"{v.name} is cut at a position that is not static")
    else:
        c.same(out[axis], pieces[at])


def couple_slice(c: Coupled, v: GraphValue) -> None:
    axis, start, end, step = (v.attrs[k] for k in ("axis", "start", "end", "step"))
    size = v.inputs[0].shape[axis] if v.inputs[0] is not None and v.inputs[0].shape else None
    if step != 1 or start is None or end is None or not isinstance(size, int):
        _pieces(c, v, axis, [None], 0)
        return
    sizes = [start, max(0, end - start), size - max(start, end)]
    _pieces(c, v, axis, [s for s in sizes if s], 1 if start else 0)


def couple_split(c: Coupled, v: GraphValue) -> None:
    _pieces(c, v, v.attrs["axis"], v.attrs["sizes"], v.index)


def couple_select(c: Coupled, v: GraphValue) -> None:
    x, axis = c.of(v.inputs[0]), v.attrs["axis"]
    c.freeze_axes(v.inputs[0], [axis], f"{v.name} selects from it by position")
    for a, b in zip((*x[:axis], *x[axis + 1 :]), c.axes[v], strict=True):
        c.same(a, b)


def compute_slice(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    x, axis = o[0], a["axis"]
    start, end, step = a["start"], a["end"], a["step"] or 1
    if start is None or end is None:  # a size given at run time: the result's own says how much is kept
        if start is None:
            raise ValueError("dynamic start")
        kept = known()[axis]
        if kept is None:
            raise ValueError("dynamic end")
        end = start + kept * step
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, end, step)
    return x[tuple(index)]

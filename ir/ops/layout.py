"""Operators that arrange the same elements otherwise: reshape, transpose, axes of one element, repeats."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..values import GraphValue
from .axes import Atom, Merged, Term, fix
from .coupled import Coupled
from .symbolic import Attrs, Known, Shape, Shapes, of_first


def shape_given(shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    """reshape, expand: the target, with 0 and -1 resolved by the dialect."""
    return tuple(attrs["shape"])


@of_first
def shape_transpose(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return tuple(first[p] for p in attrs["perm"])


@of_first
def shape_unsqueeze(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    sizes = iter(first)
    rank = len(first) + len(attrs["axes"])
    axes = {a % rank for a in attrs["axes"]}
    return tuple(1 if i in axes else next(sizes) for i in range(rank))


@of_first
def shape_squeeze(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return tuple(d for i, d in enumerate(first) if i not in {a % len(first) for a in attrs["axes"]})


@of_first
def shape_pad(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    return tuple(
        d if pads == (0, 0) else d + sum(pads) if isinstance(d, int) else None
        for d, pads in zip(first, attrs["pads"], strict=True)
    )


@of_first
def shape_tile(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape:
    repeats = attrs["repeats"]
    padded = (1,) * (len(repeats) - len(first)) + first
    sizes = zip(padded, repeats, strict=True)
    return tuple(d if r == 1 else r * d if isinstance(d, int) and r is not None else None for d, r in sizes)


def couple_transpose(c: Coupled, v: GraphValue) -> None:
    for term, source in zip(c.axes[v], v.attrs["perm"], strict=True):
        c.same(term, c.of(v.inputs[0])[source])


def couple_reshape(c: Coupled, v: GraphValue) -> None:
    """Row-major order: a run of axes on one side is a run on the other as soon as their sizes agree."""
    source, target = list(c.of(v.inputs[0])), list(c.axes[v])
    while source and target and None not in (source[-1], target[-1]):
        left, right = [source.pop()], [target.pop()]
        while (m := _size(left)) != (n := _size(right)):
            axes, side = (source, left) if m < n else (target, right)
            if not axes or axes[-1] is None:
                break
            side.insert(0, axes.pop())
        if _size(left) != _size(right):
            source, target = source + left, target + right
            break
        c.same(_joined(left), _joined(right))
    while source and target and None not in (source[0], target[0]) and _size(source[:1]) == _size(target[:1]):
        c.same(source.pop(0), target.pop(0))
    for term in (*source, *target):
        if term is not None:
            fix(term, f"{v.name} reshapes it together with an axis of unknown size")


def _size(terms: Sequence[Term | None]) -> int:
    return prod(term.size for term in terms if term is not None)


def _joined(terms: Sequence[Term | None]) -> Term:
    """A run of axes as one."""
    parts = tuple(term for term in terms if term is not None)
    return parts[0] if len(parts) == 1 else Merged(parts)


def couple_unsqueeze(c: Coupled, v: GraphValue) -> None:
    kept = [term for axis, term in enumerate(c.axes[v]) if axis not in v.attrs["axes"]]
    for a, b in zip(kept, c.of(v.inputs[0]), strict=True):
        c.same(a, b)


def couple_squeeze(c: Coupled, v: GraphValue) -> None:
    kept = [term for axis, term in enumerate(c.of(v.inputs[0])) if axis not in v.attrs["axes"]]
    for a, b in zip(kept, c.axes[v], strict=True):
        c.same(a, b)


def couple_pad(c: Coupled, v: GraphValue) -> None:
    for axis, (term, pads) in enumerate(zip(c.axes[v], v.attrs["pads"], strict=True)):
        if pads == (0, 0):
            c.same(term, c.of(v.inputs[0])[axis])
        else:
            c.freeze_axes(v, [axis], f"{v.name} pads it")
            c.freeze_axes(v.inputs[0], [axis], f"{v.name} pads it")


def couple_tile(c: Coupled, v: GraphValue) -> None:
    out, x = c.axes[v], c.of(v.inputs[0])
    for term, source in zip(reversed(out), reversed(x), strict=False):
        if term is None or source is None or term.size % source.size:
            c.same(term, source)
        else:
            c.same(term, Merged((Atom(term.size // source.size), source)))


def compute_reshape(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    return o[0].reshape([-1 if s is None else s for s in known()])  # ValueError when two are unknown


def compute_unsqueeze(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    return np.expand_dims(o[0], tuple(a["axes"]))


def compute_expand(o: Sequence[Any], a: Attrs, known: Known) -> np.ndarray:
    """An axis whose target is unknown stays as it is: what it meets later broadcasts it."""
    target = known()
    own = (1,) * (len(target) - o[0].ndim) + o[0].shape
    wanted = [have if want is None else want for have, want in zip(own, target, strict=True)]
    return np.broadcast_to(o[0], np.broadcast_shapes(own, tuple(wanted)))

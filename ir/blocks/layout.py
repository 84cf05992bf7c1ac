"""Which feature of a projection ends up where, through reshapes, transposes, splits and repeats.

A `Layout` describes the axes of one value as groups of atoms. A row atom is an axis of the input that is
only ever moved (batch, length); feature atoms are factors of the feature axis, and `features` holds, for
every combination of them, the feature it came from. So a query projection's (batch, length, 32) becomes,
after a reshape and a transpose, [batch][heads][length][head_dim] with features = arange(32) as (4, 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..values import Dim, Value
from .refused import Refused
from .walk import LAYOUT, passes, whole

MOVES = LAYOUT | {"identity", "dropout", "cast"}


@dataclass(frozen=True)
class Atom:
    """One factor of an axis. feature: it counts features, and its size is a number; otherwise rows."""

    name: str
    size: Dim
    feature: bool = False

    @property
    def count(self) -> int:
        assert isinstance(self.size, int)
        return self.size


@dataclass(frozen=True)
class Layout:
    """axes: the atoms of every axis, outermost first. order: the feature atoms, as axes of `features`."""

    axes: tuple[tuple[Atom, ...], ...]
    order: tuple[Atom, ...]
    features: np.ndarray

    @staticmethod
    def of(shape: Sequence[Dim], groups: dict[int, tuple[int, ...]]) -> Layout:
        """A fresh layout: `groups` gives for each feature axis its factors, e.g. {1: (4,), 3: (8,)}."""
        axes: list[tuple[Atom, ...]] = []
        order: list[Atom] = []
        for axis, size in enumerate(shape):
            if axis in groups:
                atoms = tuple(Atom(f"f{axis}.{i}", n, True) for i, n in enumerate(groups[axis]))
                order += atoms
            else:
                atoms = (Atom(f"row{axis}", size),) if size != 1 else ()
            axes.append(atoms)
        sizes = [a.count for a in order]
        return Layout(tuple(axes), tuple(order), np.arange(math.prod(sizes)).reshape(sizes))

    def kept(self, axis: int) -> tuple[int, ...] | None:
        """The sizes of an axis made of features alone, None for one with rows in it."""
        atoms = self.axes[axis]
        return tuple(a.count for a in atoms) if all(a.feature for a in atoms) else None

    def columns(self, axes: Sequence[int]) -> np.ndarray:
        """The features in the order of the given axes' atoms, one dimension per axis.

        Raises:
            ValueError: feature atoms lie elsewhere too.
        """
        wanted = [a for axis in axes for a in self.axes[axis] if a.feature]
        if len(wanted) != len(self.order):
            raise ValueError("features lie on other axes too")
        moved = self.features.transpose([self.order.index(a) for a in wanted])
        return moved.reshape([math.prod(a.count for a in self.axes[x] if a.feature) for x in axes])

    def through(self, value: Value) -> Layout:
        """The layout of a value computed from the one this layout describes. Raises Refused."""
        if passes(value) or value.op not in LAYOUT:
            return self._same_rank(value)
        if value.op == "transpose":
            return replace(self, axes=tuple(self.axes[p] for p in value.attrs["perm"]))
        if value.op == "unsqueeze":
            axes = list(self.axes)
            for axis in sorted(value.attrs["axes"]):
                axes.insert(axis, ())
            return replace(self, axes=tuple(axes))
        if value.op == "squeeze":
            return self._squeeze(value)
        if value.op == "expand":
            return self._expand(value)
        if value.op == "reshape":
            return self._reshape(value)
        return self._pick(value)

    def _same_rank(self, value: Value) -> Layout:
        if value.shape is not None and len(value.shape) != len(self.axes):
            raise Refused(value, "the number of axes changes")
        return self

    def _squeeze(self, value: Value) -> Layout:
        gone = set(value.attrs["axes"])
        dropped = [atom for axis in gone for atom in self.axes[axis]]
        if any(atom.size != 1 or not atom.feature for atom in dropped):
            raise Refused(value, "an axis that is not known to be 1 is dropped")
        features = self.features.squeeze(tuple(self.order.index(atom) for atom in dropped))
        return Layout(
            tuple(atoms for axis, atoms in enumerate(self.axes) if axis not in gone),
            tuple(atom for atom in self.order if atom not in dropped),
            features,
        )

    def _expand(self, value: Value) -> Layout:
        shape = value.shape if value.shape is not None else value.attrs.get("shape")
        if shape is None:
            raise Refused(value, "expands to an unknown shape")
        layout = replace(self, axes=((),) * (len(shape) - len(self.axes)) + self.axes)
        for axis, size in enumerate(shape):
            if not layout.axes[axis] and size != 1:
                layout = layout._repeat(value, axis, size)
        return layout

    def _repeat(self, value: Value, axis: int, size: Dim) -> Layout:
        """A unit axis becomes `size` copies: of the same features, so heads repeat."""
        if not isinstance(size, int):
            atom = Atom(f"{value.name}.{axis}", size)
            return replace(self, axes=_put(self.axes, axis, (atom,)))
        atom = Atom(f"{value.name}.{axis}", size, True)
        features = np.broadcast_to(self.features[..., None], (*self.features.shape, size))
        return Layout(_put(self.axes, axis, (atom,)), (*self.order, atom), features)

    def _pick(self, value: Value) -> Layout:
        """slice, select, split: some of the features of an axis, or all of one of rows."""
        axis, attrs = value.attrs["axis"], value.attrs
        if value.op == "slice" and whole(value):
            return self
        atoms = self.axes[axis]
        if not atoms or not all(a.feature for a in atoms):
            raise Refused(value, "only some of the rows are taken")
        layout = self._merge(atoms, f"{value.name}.{axis}")
        at = layout.order.index(layout.axes[axis][0])
        if value.op == "select":
            if attrs["index"] is None:
                raise Refused(value, "selects at an unknown place")
            order = tuple(a for i, a in enumerate(layout.order) if i != at)
            axes = tuple(atoms for i, atoms in enumerate(layout.axes) if i != axis)
            return Layout(axes, order, layout.features.take(attrs["index"], axis=at))
        if value.op == "split":
            sizes = attrs["sizes"]
            if None in sizes:
                raise Refused(value, "splits at unknown places")
            start = sum(sizes[: value.index])
            chosen = range(start, start + sizes[value.index])
        else:
            if attrs["start"] is None or attrs["end"] is None or attrs["step"] is None:
                raise Refused(value, "slices at unknown places")
            chosen = range(layout.features.shape[at])[attrs["start"] : attrs["end"] : attrs["step"]]
        features = layout.features.take(list(chosen), axis=at)
        atom = Atom(value.name, len(chosen), True)
        order = (*layout.order[:at], atom, *layout.order[at + 1 :])
        return Layout(_put(layout.axes, axis, (atom,)), order, features)

    def _merge(self, atoms: tuple[Atom, ...], name: str) -> Layout:
        """The atoms of one axis made one."""
        if len(atoms) == 1:
            return self
        rest = [a for a in self.order if a not in atoms]
        moved = self.features.transpose([self.order.index(a) for a in (*rest, *atoms)])
        atom = Atom(name, math.prod(a.count for a in atoms), True)
        features = moved.reshape(*[a.count for a in rest], atom.count)
        axes = tuple((atom,) if axis == atoms else axis for axis in self.axes)
        return Layout(axes, (*rest, atom), features)

    def _split(self, atom: Atom, outer: int) -> tuple[Layout, tuple[Atom, Atom]]:
        """A feature atom cut into (outer, rest)."""
        assert isinstance(atom.size, int)
        pair = (
            Atom(f"{atom.name}/{outer}", outer, True),
            Atom(f"{atom.name}%{outer}", atom.size // outer, True),
        )
        at = self.order.index(atom)
        shape = self.features.shape
        features = self.features.reshape(*shape[:at], outer, atom.size // outer, *shape[at + 1 :])
        axes = tuple(tuple(x for a in axis for x in (pair if a == atom else (a,))) for axis in self.axes)
        return Layout(axes, (*self.order[:at], *pair, *self.order[at + 1 :]), features), pair

    def _reshape(self, value: Value) -> Layout:
        """Deal the atoms out to the new axes from the last to the first, where sizes are surest."""
        shape = value.shape if value.shape is not None else value.attrs.get("shape")
        if shape is None:
            raise Refused(value, "reshapes to an unknown shape")
        layout: Layout = self
        left = [a for axis in self.axes for a in axis]
        axes: list[tuple[Atom, ...]] = []
        for place in range(len(shape) - 1, -1, -1):
            size = shape[place]
            taken: list[Atom] = []
            if isinstance(size, int):
                layout, left, taken = layout._take(value, left, size)
            elif left:
                taken = _take_unknown(left, size, place)
            axes.insert(0, tuple(taken))
        if left:
            raise Refused(value, "the new shape does not hold all axes")
        return replace(layout, axes=tuple(axes))

    def _take(self, value: Value, left: list[Atom], size: int) -> tuple[Layout, list[Atom], list[Atom]]:
        """Atoms off the end of `left` that make `size`, cutting one where needed."""
        layout, left = self, list(left)
        taken: list[Atom] = []
        while size > 1:
            atom = left.pop() if left else None
            if atom is None or not isinstance(atom.size, int):
                raise Refused(value, f"an axis of {size} is made of axes of unknown size")
            if size % atom.size == 0:
                taken.insert(0, atom)
                size //= atom.size
            elif atom.feature and atom.size % size == 0:
                layout, (rest, last) = layout._split(atom, atom.size // size)
                left.append(rest)
                taken.insert(0, last)
                size = 1
            else:
                raise Refused(value, f"an axis of {atom.size} is cut into pieces of {size}")
        return layout, left, taken


def _take_unknown(left: list[Atom], size: Dim, place: int) -> list[Atom]:
    """Atoms for an axis whose size is no number: all that is left for the first, else up to one row."""
    if place == 0:
        taken, left[:] = list(left), []
        return taken
    taken = [left.pop()]
    # An axis of features alone would have a known size, unless nothing is known: rows are merged into it.
    while size is not None and left and taken[0].feature and isinstance(taken[0].size, int):
        taken.insert(0, left.pop())
    return taken


def _put(
    axes: tuple[tuple[Atom, ...], ...], at: int, atoms: tuple[Atom, ...]
) -> tuple[tuple[Atom, ...], ...]:
    return (*axes[:at], atoms, *axes[at + 1 :])

"""What an axis is made of, and making two axes the same.

An axis of 32 that is viewed as 4 heads of 8 is a product of two atoms; a fused projection of 96 is a
concatenation of three axes. Whatever couples two axes unifies what they are made of, as in type inference,
and an atom that turns out to be composite is so wherever it stands. What stays an atom is a set of units
that must be kept or removed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

LARGEST = 2**31  # a static size; a larger one stands for a symbol


@dataclass(eq=False)
class Atom:
    """`size` units. fixed: why they cannot be removed, or empty. to: what the atom turned out to be."""

    size: int
    fixed: str = ""
    to: Term | None = None


@dataclass(frozen=True, eq=False)
class Merged:
    """Row-major: the last part varies fastest."""

    parts: tuple[Term, ...]

    @property
    def size(self) -> int:
        return prod(part.size for part in self.parts)


@dataclass(frozen=True, eq=False)
class Concat:
    """One part after another."""

    parts: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Term = Atom | Merged | Concat


@dataclass(frozen=True)
class IndexMap:
    """Where an atom's units lie along an axis.

    Unit u is the `inner` elements from offset + u * inner on, and again at every combination of `repeats`
    (count, stride). The identity is IndexMap(); blocks of a head's 8 rows are IndexMap(inner=8).
    """

    offset: int = 0
    inner: int = 1
    repeats: tuple[tuple[int, int], ...] = ()

    @property
    def static(self) -> bool:
        """Whether the places are known before the call: no symbol among the sizes."""
        return max(self.inner, self.offset, *(n for repeat in self.repeats for n in repeat), 0) <= LARGEST

    def indices(self, units: Sequence[int] | np.ndarray) -> np.ndarray:
        """Positions along the axis of the given units, ascending."""
        found = np.asarray(units, dtype=np.int64)[:, None] * self.inner + np.arange(self.inner) + self.offset
        for count, stride in self.repeats:
            found = found.reshape(-1)[:, None] + np.arange(count) * stride
        return np.sort(found.reshape(-1))


def walk(term: Term) -> Term:
    """A term as it is known now: an atom only if it is still one."""
    while isinstance(term, Atom) and term.to is not None:
        if isinstance(term.to, Atom) and term.to.to is not None:
            term.to = term.to.to
        term = term.to
    return term


def fix(term: Term, reason: str) -> None:
    """Declares that no unit of an axis can be removed."""
    for atom, _ in leaves(term):
        atom.fixed = atom.fixed or reason


def leaves(term: Term, where: IndexMap = IndexMap()) -> Iterator[tuple[Atom, IndexMap]]:
    """The atoms of an axis, each with its place along it."""
    term = walk(term)
    if isinstance(term, Atom):
        yield term, where
    elif isinstance(term, Concat):
        offset = where.offset
        for part in term.parts:
            yield from leaves(part, IndexMap(offset, where.inner, where.repeats))
            offset += part.size * where.inner
    else:
        for k, part in enumerate(term.parts):
            inner = where.inner * prod(later.size for later in term.parts[k + 1 :])
            count = prod(earlier.size for earlier in term.parts[:k])
            repeats = (*where.repeats, (count, part.size * inner)) if count > 1 else where.repeats
            yield from leaves(part, IndexMap(where.offset, inner, repeats))


def unify(a: Term, b: Term) -> None:
    """Makes two axes of one size the same. Where their structures don't fit each other, both become fixed."""
    a, b = walk(a), walk(b)
    if a is b:
        return
    if isinstance(b, Atom) and not isinstance(a, Atom):
        a, b = b, a
    if isinstance(a, Atom):
        if any(atom is a for atom, _ in leaves(b)):
            fix(b, "an axis that is coupled with a part of itself")
            return
        if a.fixed:
            fix(b, a.fixed)
        a.to = b
    elif isinstance(a, Merged) and isinstance(b, Merged):
        _unify_products(a, b)
    else:
        _unify_concats(a, b)


def _flat(term: Term, kind: type) -> list[Term]:
    term = walk(term)
    if not isinstance(term, Atom) and isinstance(term, kind):
        return [part for inner in term.parts for part in _flat(inner, kind)]
    return [term]


def _unify_products(a: Merged, b: Merged) -> None:
    left, right = ([part for part in _flat(term, Merged) if part.size > 1] for term in (a, b))
    while left and right:
        x, y = walk(left.pop()), walk(right.pop())
        if x.size < y.size:
            x, y, left, right = y, x, right, left
        if x.size == y.size:
            unify(x, y)
        elif isinstance(x, Atom) and x.size % y.size == 0:
            outer = Atom(x.size // y.size, x.fixed)
            x.to = Merged((outer, y))
            if x.fixed:
                fix(y, x.fixed)
            left.append(outer)
        else:
            _misfit(a, b)
            return


def _unify_concats(a: Term, b: Term) -> None:
    left, right = _flat(a, Concat)[::-1], _flat(b, Concat)[::-1]
    while left and right:
        x, y = walk(left.pop()), walk(right.pop())
        if x.size < y.size:
            x, y, left, right = y, x, right, left
        pieces = [x] if x.size == y.size else cut(x, [y.size, x.size - y.size])
        if pieces is None:
            _misfit(a, b)
            return
        unify(pieces[0], y)
        left.extend(pieces[1:])


def cut(term: Term, sizes: Sequence[int]) -> list[Term] | None:
    """An axis cut into consecutive pieces; None where a cut would fall inside a unit."""
    term = walk(term)
    if sum(sizes) != term.size:
        return None
    if isinstance(term, Atom):
        pieces: list[Term] = [Atom(size, term.fixed) for size in sizes]
        term.to = Concat(tuple(pieces))
        return pieces
    if isinstance(term, Merged):
        inner = prod(part.size for part in term.parts[1:])
        if any(size % inner for size in sizes):
            return None
        outer = cut(term.parts[0], [size // inner for size in sizes])
        return outer and [Merged((part, *term.parts[1:])) for part in outer]
    parts, pieces = _flat(term, Concat)[::-1], []
    for size in sizes:
        piece: list[Term] = []
        while (missing := size - sum(p.size for p in piece)) > 0:
            part = walk(parts.pop())
            if part.size > missing:
                halves = cut(part, [missing, part.size - missing])
                if halves is None:
                    return None
                part = halves[0]
                parts.append(halves[1])
            piece.append(part)
        pieces.append(piece[0] if len(piece) == 1 else Concat(tuple(piece)))
    return pieces


def _misfit(a: Term, b: Term) -> None:
    for term in (a, b):
        fix(term, "coupled axes of different structure")

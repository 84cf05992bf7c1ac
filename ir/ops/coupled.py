"""What a coupling rule writes into: the axes of every value seen so far, made the same where rules say so."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from math import isqrt

from ..values import Dim, GraphValue
from .axes import LARGEST, Atom, Term, fix, unify
from .symbolic import factors

Axes = tuple[Term | None, ...]  # None: an axis of unknown size


class Coupled:
    """axes: of every value entered. hints: (axis, what it seems to be)."""

    def __init__(self) -> None:
        self.axes: dict[GraphValue, Axes] = {}
        self.hints: list[tuple[Term, str]] = []
        self._primes: dict[str, int] = {}

    def enter(self, value: GraphValue) -> None:
        """A value whose axes are nobody's yet."""
        self.axes[value] = tuple(map(self._atom, value.shape or ()))

    def _atom(self, size: Dim) -> Term | None:
        """A fresh axis. Every symbol stands as a prime too large to be a size, so that sizes factor alike."""
        if size is None:
            return None
        number, symbols = factors(size)
        for symbol in symbols:
            if symbol not in self._primes:
                self._primes[symbol] = _prime_from(max(self._primes.values(), default=LARGEST) + 1)
            number *= self._primes[symbol]
        return Atom(number)

    def of(self, value: GraphValue | None) -> Axes:
        return self.axes[value] if value is not None else ()

    def hint(self, term: Term | None, kind: str) -> None:
        if term is not None:
            self.hints.append((term, kind))

    def same(self, a: Term | None, b: Term | None) -> None:
        """Couples two axes. Where their sizes aren't known to be equal, neither can change."""
        if a is not None and b is not None and a.size == b.size:
            unify(a, b)
        else:
            for term in (a, b):
                if term is not None:
                    fix(term, "coupled with an axis of another or unknown size")

    def align(self, a: Axes, b: Axes) -> None:
        """NumPy's broadcasting: axes are the same counted from the right, those of one element aside."""
        for x, y in zip(reversed(a), reversed(b), strict=False):
            if not any(term is not None and term.size == 1 for term in (x, y)):
                self.same(x, y)

    def freeze_axes(self, value: GraphValue | None, axes: Iterable[int], reason: str) -> None:
        for axis in axes:
            term = self.of(value)[axis]
            if term is not None:
                fix(term, reason)

    def freeze(self, value: GraphValue, reason: str) -> None:
        """Fixes everything that an operator touches."""
        for each in (value, *value.inputs):
            self.freeze_axes(each, range(len(self.of(each))), reason)


def _prime_from(number: int) -> int:
    return next(n for n in count(number) if all(n % d for d in range(2, isqrt(n) + 1)))

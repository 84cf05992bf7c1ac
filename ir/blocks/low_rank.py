"""Two Linears in a row that are one of low rank: y = U (D x) (+ b), with fewer features between than around.

Such pairs come from a truncated singular value decomposition; several U may read one D (queries, keys and
values). The first has no bias and nothing else reads it, so that nothing tells it from a part of the second.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..values import Value, View
from .base import Linear
from .walk import bare, users


class LowRank:
    """The pairs among the Linears of a graph."""

    def __init__(self, view: View, linears: Mapping[Value, Linear]) -> None:
        self._linears = linears
        self._outputs = {bare(value) for value in view.outputs}
        self._reads = {value: linear for linear in linears.values() for value in linear.body}

    def before(self, linear: Linear) -> Linear | None:
        """The Linear that narrows what this one widens."""
        first = self._linears.get(bare(linear.input))
        return first if first is not None and self._narrow(first) else None

    def after(self, linear: Linear) -> Linear | None:
        """The one Linear that widens what this one narrows."""
        readers = {
            self._reads[user].root: self._reads[user] for user in users(linear.root) if user in self._reads
        }
        return next(iter(readers.values())) if len(readers) == 1 and self._narrow(linear) else None

    def source(self, linear: Linear) -> Value:
        """What a Linear reads, or what the one before it does."""
        first = self.before(linear)
        return linear.input if first is None else first.input

    def _narrow(self, first: Linear) -> bool:
        readers = [self._reads.get(user) for user in users(first.root)]
        plain = first.bias is None and first.axis == -1 and first.groups == 1
        plain = plain and first.root not in self._outputs
        return (
            plain
            and bool(readers)
            and first.out_features < first.in_features
            and all(
                one is not None and one.axis == -1 and first.out_features < one.out_features
                for one in readers
            )
        )

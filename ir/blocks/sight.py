"""Which keys a query sees among those that the mask input keeps, by rules that kernels know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..values import Value
from .base import Attention
from .mask import HIDDEN


@dataclass(frozen=True)
class Sight:
    """How many places before and behind its own a token looks; None is any number."""

    before: int | None = None
    behind: int | None = None

    def covers(self, length: int) -> np.ndarray:
        """(queries, keys) bool."""
        far, near = _distances(length), np.ones((length, length), bool)
        if self.before is not None:
            near &= far >= -self.before
        return near & (far <= self.behind) if self.behind is not None else near


@dataclass(frozen=True, eq=False)
class Fixed:
    """sees: (queries, keys) bool."""

    sees: np.ndarray

    def covers(self, length: int) -> np.ndarray:
        return self.sees


def hiding(attention: Attention) -> list[Value]:
    """What is added to an attention's scores, and what selects them."""
    selecting = [attention.mask] if attention.selected and attention.mask is not None else []
    return [term for _, term in attention.terms] + selecting


def visible(
    attention: Attention,
    kept: np.ndarray,
    values: Mapping[Value, np.ndarray],
    queries: slice = slice(None),
) -> np.ndarray | None:
    """(batch, 1 or heads, queries, length): which keys each kept query sees, false for other queries; None
    where more than hiding is done to a score."""
    batch, length = kept.shape
    count = len(range(length)[queries])
    values = {value: array[..., queries, :] if array.shape[-2:-1] == (length,) else array
              for value, array in values.items()}  # fmt: skip
    total: np.ndarray = np.zeros((1, 1, 1, 1), np.float32)
    open_ = np.ones((1, 1, 1, 1), bool)
    for factor, term in attention.terms:
        total = total + factor * values[term]
    if attention.selected:
        assert attention.mask is not None
        open_ = values[attention.mask].astype(bool) == attention.mask_keeps
    if total.ndim > 4 or open_.ndim > 4:
        return None
    try:
        seen = np.broadcast_to(open_ & (total > HIDDEN), (batch, total.shape[-3], count, length))
        added = np.broadcast_to(total, seen.shape)
    except ValueError:
        return None
    if attention.causal:
        seen = seen & np.tri(length, dtype=bool)[queries]
    seen = seen & kept[:, None, queries, None]
    return None if np.abs(added[seen]).max(initial=0.0) > 1e-6 else seen


Cases = Sequence[tuple[np.ndarray, np.ndarray]]


def rule(cases: Cases) -> Sight | Fixed | None:
    """The rule that holds in all cases, the simplest.

    Args:
        cases: (which tokens are kept, (batch, length) bool; which keys each kept query sees, false for other
            queries, (batch, 1 or heads, length, length) bool), the last one with all tokens kept.
    """
    length = cases[0][0].shape[1]
    itself = np.arange(length)
    if any((seen[..., itself, itself] != kept[:, None]).any() for kept, seen in cases):
        return None  # a softmax over no key is the mean over all, padding too
    far = _distances(length)
    reached = np.concatenate([far[seen.any((0, 1))] for _, seen in cases])
    window = Sight(-int(reached.min()), int(reached.max()))
    for found in (Sight(), Sight(behind=0), window, Fixed(cases[-1][1][0, 0])):
        covered = found.covers(length)
        if all((seen == (covered & _pairs(kept))).all() for kept, seen in cases):
            return found
    return None


def _distances(length: int) -> np.ndarray:
    """How far behind each query (a row) each key (a column) is."""
    places = np.arange(length)
    return places[None, :] - places[:, None]


def _pairs(kept: np.ndarray) -> np.ndarray:
    """(batch, 1, length, length): whether query and key are both kept."""
    return kept[:, None, :, None] & kept[:, None, None, :]

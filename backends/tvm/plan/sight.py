"""Which keys a query sees among those that the mask input keeps, by rules that kernels know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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

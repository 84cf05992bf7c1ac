"""Least-squares blocks of a matrix on its diagonal, and which neurons make them keep most; in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import linear_sum_assignment

from ..low_rank.truncated import about_mean


@dataclass(frozen=True)
class Seen:
    """What a layer is given. moments: (in, in), X^T X, about the mean where that is known. mean: (in,)."""

    moments: np.ndarray
    mean: np.ndarray | None = None
    damping: float = 1.0

    @classmethod
    def of(cls, gram: np.ndarray | None, columns: int, biased: bool, damping: float) -> Seen:
        """gram: [X 1]^T [X 1], (columns + 1, columns + 1); None where there were no texts: all directions
        count alike. biased: a bias makes up for what the mean loses."""
        if gram is None:
            return cls(np.eye(columns))
        moments, mean = about_mean(gram) if biased else (gram[:-1, :-1], None)
        return cls(moments, mean, damping)

    def energy(self, weight: np.ndarray) -> float:
        """sum |weight x|^2 over what was seen."""
        return float(np.einsum("ij,ij->", weight @ self.moments, weight))

    def block(self, weight: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The matrix B over some columns for which sum |W x - B x_columns|^2 is least, pulled towards W's own
        entries there where texts are too few to tell; and (rows,), what a bias adds.

        Args:
            weight: (rows, in), W. columns: (k,), which of `in`.
        """
        pull = self.damping * float(np.trace(self.moments)) / len(self.moments) or 1.0
        inner = self.moments[np.ix_(columns, columns)] + pull * np.eye(len(columns))
        right = weight @ self.moments[:, columns] + pull * weight[:, columns]
        made = cho_solve(cho_factor(inner, lower=True), right.T).T
        if self.mean is None:
            return made, np.zeros(len(weight))
        return made, weight @ self.mean - made @ self.mean[columns]


def even(size: int, groups: int) -> np.ndarray:
    """(groups, size / groups): numbers in their order."""
    return np.arange(size).reshape(groups, -1)


def neurons(
    ups: Sequence[np.ndarray], down: np.ndarray, into: np.ndarray, inside: np.ndarray, groups: int
) -> np.ndarray:
    """(groups, width / groups), ascending in each: the neurons of each block, of equal counts, for which
    blocks hold the most of weight^2 times second moment, as shares of what both products hold.

    Args:
        ups: (width, in) each, of neurons (two where gated). down: (out, width).
        into: (in,), second moments of what `ups` read. inside: (width,), of what `down` reads.
    """
    held = np.zeros((down.shape[1], groups))
    for energy in (*(up**2 * into for up in ups), (down**2 * inside).T):
        total = float(energy.sum()) or 1.0
        held += energy.reshape(len(held), groups, -1).sum(-1) / total
    size = len(held) // groups
    chosen = linear_sum_assignment(np.repeat(held, size, axis=1), maximize=True)[1] // size
    return np.stack([np.flatnonzero(chosen == group) for group in range(groups)])

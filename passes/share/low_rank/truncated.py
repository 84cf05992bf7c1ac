"""The best approximations of a low rank: truncated singular value decompositions, in float64.

Eckart and Young (1936): the sum of the k largest singular triples of M is the matrix of rank k nearest to M,
and the squared error is the sum of the other singular values' squares. Where rows are to count differently,
M is D^1/2 T; where what counts are the products with activations of second moments C, M is W C^1/2 (SVD-LLM:
Wang et al., 2024, arXiv:2403.07378, section 3.1). Both have the same answer: with U the k leading vectors on
the side that is not weighed, the best T' is T U U^T and the best W' is U U^T W, so that nothing is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, eigh, svd

_ROWS = 4096  # of a table that are in float64 at a time


@dataclass(frozen=True)
class Truncated:
    """rows: (tokens, rank), columns: (features, rank), orthonormal; the table is near rows columns^T.
    energy: the share of the squared size, as weighed, that is kept."""

    rows: np.ndarray
    columns: np.ndarray
    energy: float


def weighted_rows(table: np.ndarray, weight: np.ndarray, rank: int) -> Truncated:
    """The matrix of a rank for which sum_i weight_i |table_i - row_i|^2 is least.

    Args:
        table: (tokens, features), any float dtype. weight: (tokens,), above 0 or 0.
        rank: at most the features.
    """
    parts = [slice(start, start + _ROWS) for start in range(0, len(table), _ROWS)]
    gram = np.zeros((table.shape[1], table.shape[1]))
    for part in parts:
        rows = table[part].astype(np.float64)
        gram += rows.T @ (weight[part, None] * rows)
    values, vectors = eigh(gram)
    columns = np.ascontiguousarray(vectors[:, ::-1][:, :rank])
    made = np.concatenate([table[part].astype(np.float64) @ columns for part in parts])
    total = float(np.trace(gram))
    return Truncated(made, columns, float(values[::-1][:rank].sum() / total) if total else 1.0)


@dataclass(frozen=True)
class Spectrum:
    """Of a weight (out, in) by the activations that it multiplies, all float64.

    left: (out, n), orthonormal, leading first. energy: (n,), what each holds of the squared products. mean:
    (in,), of activations whose moments are about it: a bias makes up for what it loses. None: of none.
    """

    weight: np.ndarray
    left: np.ndarray
    energy: np.ndarray
    mean: np.ndarray | None = None

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """(out, rank) and (rank, in): their product is the best of that rank."""
        wide = np.ascontiguousarray(self.left[:, :rank])
        return wide, wide.T @ self.weight

    def shift(self, rank: int) -> np.ndarray | None:
        """(out,): what the mean loses."""
        if self.mean is None:
            return None
        wide, narrow = self.factors(rank)
        return self.weight @ self.mean - wide @ (narrow @ self.mean)

    def lost(self, rank: int) -> float:
        """The share of the squared products that a rank loses."""
        whole = float(self.energy.sum())
        return float(self.energy[rank:].sum()) / whole if whole else 0.0

    def rank(self, energy: float) -> int:
        """The least rank that keeps a share of the squared products."""
        kept = np.cumsum(self.energy)
        return int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12))) + 1


def about_mean(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X^T X about the mean of X's rows, and that mean, from [X 1]^T [X 1]."""
    mean = gram[-1, :-1] / max(gram[-1, -1], 1.0)
    return gram[:-1, :-1] - gram[-1, -1] * np.outer(mean, mean), mean


def spectrum(
    weight: np.ndarray, moments: np.ndarray | None, damping: float, mean: np.ndarray | None = None
) -> Spectrum:
    """What each rank of a weight loses.

    Args:
        weight: (out, in).
        moments: X^T X (in, in) of the activations, float64; None for all directions alike.
        damping: times the mean of the diagonal of X^T X, added to it.
        mean: that the moments are about, where they are.
    """
    weight = weight.astype(np.float64)
    seen = weight
    if moments is not None:
        pull = damping * float(np.trace(moments)) / len(moments) or 1.0
        seen = weight @ cholesky(moments + pull * np.eye(len(moments)), lower=True)
    left, values, _ = svd(seen, full_matrices=False)
    return Spectrum(weight, left, values**2, mean)

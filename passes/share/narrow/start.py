"""What a narrow layer starts from: the directions that its stream and its scores keep most of, in float64.

A stream of so few features is u = E^T x, E the principal directions of what the layer's products read, and x
is near R u, R the regression of x on u. Each head keeps the places that hold most of its scores: with Q and K
its queries and keys over the texts, the best Q A B^T K^T for Q K^T is a truncated singular value
decomposition (Eckart and Young, 1936), and likewise for its values and what the output projection makes of
them. Second moments of the projections follow from those of what they read, so texts are run once. Keys are
taken about their mean, because the softmax does not see what is added to all scores of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, eigh, qr, solve_triangular, svd

from ..low_rank.truncated import about_mean

DAMPING = 1e-3  # times the mean of the diagonal, where texts are too few


@dataclass(frozen=True)
class Affine:
    """y = x weight^T + bias. weight: (out, in). bias: (out,)."""

    weight: np.ndarray
    bias: np.ndarray

    def of(self, rows: np.ndarray) -> Affine:
        """Only some outputs."""
        return Affine(self.weight[rows], self.bias[rows])

    def after(self, seen: Seen, basis: np.ndarray) -> Affine:
        """What comes nearest to it and reads E^T x instead of x. basis: E, (in, few)."""
        back = seen.moments @ basis @ np.linalg.inv(basis.T @ seen.moments @ basis)
        lost = seen.mean - back @ (basis.T @ seen.mean)
        return Affine(self.weight @ back, self.bias + self.weight @ lost)


@dataclass(frozen=True)
class Seen:
    """What a product reads. moments: (in, in), positive definite, about the mean (in,)."""

    moments: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray | None, width: int) -> Seen:
        """Of [X 1]^T [X 1]; all directions alike where there is none."""
        if gram is None:
            return cls(np.eye(width), np.zeros(width))
        moments, mean = about_mean(gram)
        moments = moments / max(gram[-1, -1], 1.0)
        pull = DAMPING * float(np.trace(moments)) / width or 1.0
        return cls(moments + pull * np.eye(width), mean)

    def through(self, product: Affine) -> Seen:
        """What a product makes of it."""
        moments = product.weight @ self.moments @ product.weight.T
        pull = DAMPING * float(np.trace(moments)) / len(moments) or 1.0
        return Seen(moments + pull * np.eye(len(moments)), product.weight @ self.mean + product.bias)


def principal(seen: Sequence[Seen], width: int) -> np.ndarray:
    """(in, width): the directions that hold most of all, each weighed alike."""
    whole = sum(one.moments / np.trace(one.moments) for one in seen)
    return np.ascontiguousarray(eigh(whole)[1][:, ::-1][:, :width])


def by_weights(read: Sequence[np.ndarray], width: int) -> np.ndarray:
    """(in, width): the directions that matrices (out, in) hold most of, each weighed alike."""
    whole = sum(one.T @ one / np.square(one).sum() for one in read)
    return np.ascontiguousarray(eigh(whole)[1][:, ::-1][:, :width])


def scored(product: np.ndarray, seen: Seen, width: int) -> np.ndarray:
    """(in, width): the directions of what is read that a product (out, in) makes most of."""
    left, _, _ = svd(product @ cholesky(seen.moments, lower=True), full_matrices=False)
    return np.asarray(qr(product.T @ left[:, :width], mode="economic")[0])


def apart(basis: np.ndarray) -> np.ndarray:
    """The same directions in other coordinates, so that the last stands where all coordinates are alike.

    A LayerNorm over them takes the mean of the coordinates away: what holds least.
    """
    count = basis.shape[1]
    mirror = -np.ones(count) / np.sqrt(count)
    mirror[-1] += 1
    if count > 1:
        basis = basis - 2 * np.outer(basis @ mirror, mirror) / (mirror @ mirror)
    return basis


def scores(queries: Sequence[Seen], keys: Seen, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(A, B), (head size, size) each, so that Q A B^T K^T comes near to Q K^T.

    Args:
        queries: of each head that reads the keys.
    """
    whole = sum(one.moments + np.outer(one.mean, one.mean) for one in queries)
    left, right = cholesky(whole, lower=True), cholesky(keys.moments, lower=True)
    u, values, vt = svd(left.T @ right)
    root = np.sqrt(values[:size])
    return (
        solve_triangular(left.T, u[:, :size]) * root,
        solve_triangular(right.T, vt[:size].T) * root,
    )


def weighed(product: np.ndarray, values: Seen, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(A, O), (head size, size) and (out, size), so that O A^T v comes near to a product (out, head size) of
    values."""
    left = cholesky(values.moments, lower=True)
    u, held, vt = svd(product @ left, full_matrices=False)
    root = np.sqrt(held[:size])
    return solve_triangular(left.T, vt[:size].T) * root, u[:, :size] * root

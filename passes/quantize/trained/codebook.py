"""Product quantization of one matrix: runs of columns are replaced by the index of one of a few centroids.

Jégou, Douze and Schmid, 2011, "Product quantization for nearest neighbor search"; for layers Stock, Joulin,
Gribonval, Graham and Jégou, 2019, arXiv:1907.05686, section 3: what should be small is the error of the
product, |x (W - Q)|^2 over real activations x, not that of the weights.

Centroids come from k-means in coordinates where the mean activation's second moment is the identity (with
x^T x = L L^T, |x (v - c)| is |L^T v - L^T c|), and each vector counts as much as its inputs are active. Codes
are then chosen column by column, and what a choice gets wrong is made up for by the columns still to come, as
GPTQ does for integers (GPTVQ: van Baalen et al., 2024, arXiv:2402.15319, section 3).
"""

from __future__ import annotations

import numpy as np

from ..fit.gptq import prepared
from .kmeans import assign, kmeans

SAMPLE = 256  # vectors to a centroid, for k-means
ITERATIONS = 15
DAMPING = 0.01  # of the mean diagonal, added to second moments


def codebook(
    weight: np.ndarray,
    block: int,
    centroids: int,
    *,
    gram: np.ndarray | None = None,
    importance: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and centroids of one matrix.

    Args:
        weight: (rows, columns), float32.
        block: columns to a code; divides columns.
        centroids: at most; there are never more than vectors.
        gram: X^T X of the activations, (columns, columns), or None for none.
        importance: (rows,), how much each row counts; equally if None.
        seed: of k-means.

    Returns:
        Codes, uint8 (rows, columns / block), and centroids, float32 (count, block).
    """
    rows, columns = weight.shape
    vectors = weight.reshape(-1, block)
    count = min(centroids, len(vectors))
    weights = None if importance is None else np.repeat(importance, columns // block)
    if gram is None or not gram.any():
        table, codes = kmeans(
            vectors, count, weights=weights, iterations=ITERATIONS, sample=SAMPLE, seed=seed
        )
        return codes.astype(np.uint8).reshape(rows, -1), table
    moments = np.stack([gram[i : i + block, i : i + block] for i in range(0, columns, block)])
    energy = np.einsum("nii->n", moments)
    mean = moments.mean(axis=0).astype(np.float64)
    mean += DAMPING * np.trace(mean) / block * np.eye(block)
    factor = np.linalg.cholesky(mean)
    active = np.tile(energy / energy.mean(), rows)
    weights = active if weights is None else weights * active
    table, _ = kmeans(
        vectors @ factor, count, weights=weights, iterations=ITERATIONS, sample=SAMPLE, seed=seed
    )
    table = np.linalg.solve(factor.T, table.astype(np.float64).T).T.astype(np.float32)
    return with_feedback(weight, table, gram), table


def with_feedback(weight: np.ndarray, table: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The codes that keep a product, chosen a run of columns at a time: uint8 (rows, columns / block).

    With U the upper Cholesky factor of the inverse gram and D = U[run, run], choosing c for v costs
    |(v - c) D^-1|^2 at best: when the columns after the run move by -(v - c) D^-1 U[run, after].
    """
    factor, _, left = prepared(weight, gram, DAMPING, False)
    rows, columns = left.shape
    block = table.shape[1]
    codes = np.empty((rows, columns // block), np.uint8)
    for number, start in enumerate(range(0, columns, block)):
        run, after = slice(start, start + block), slice(start + block, None)
        inverse = np.linalg.inv(factor[run, run])
        chosen = assign(left[:, run] @ inverse, table @ inverse)
        codes[:, number] = chosen
        left[:, after] -= (left[:, run] - table[chosen]) @ inverse @ factor[run, after]
    return codes

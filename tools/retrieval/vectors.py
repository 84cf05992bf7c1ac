"""Vectors as an index keeps them, and their products: in float32 for all, in float64 for the best."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...ir.errors import InputError
from .best import Best
from .record import Record

BLOCK = 1 << 14  # rows read at a time
_QUERIES = 256  # multiplied at once
_SCORES = 1 << 20  # of a block: 4 MB, which caches hold
_LONGEST = 1e15  # norm of a vector whose products float32 surely has


def kept(vectors: np.ndarray, dims: int, metric: str, what: str) -> np.ndarray:
    """(rows, dims) float32: the first dims (Kusupati et al., 2022), of length 1 for cosines.

    A vector of zeros stays one: its cosine with everything is 0.

    Args:
        vectors: (rows, width) floats.
        what: a refusal calls them.

    Raises:
        InputError: one holds NaN or infinities, or is too long for float32.
    """
    wide = vectors[:, :dims].astype(np.float64)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
    bad = np.flatnonzero(~(norms <= _LONGEST))
    if len(bad):
        raise InputError(f"the vector of {what}[{bad[0]}] holds NaN, infinity or a number that is too large")
    return (wide / np.where(norms > 0, norms, 1) if metric == "cosine" else wide).astype(np.float32)


def asked(queries: np.ndarray, record: Record) -> np.ndarray:
    """Queries as the index's vectors are.

    Raises:
        InputError: they are no rows of as many numbers as the model gives, or as the index keeps.
    """
    array = np.asarray(queries)
    sizes = " or ".join(map(str, sorted({record.width, record.dims})))
    if array.ndim != 2 or array.shape[1] not in (record.width, record.dims) or array.dtype.kind not in "fiu":
        raise InputError(
            f"the index is asked with rows of {sizes} numbers, not {array.dtype} {list(array.shape)}"
        )
    return kept(array, record.dims, record.metric, "queries")


def whole(vectors: np.ndarray, queries: np.ndarray, wanted: int, longest: float) -> Iterator[np.ndarray]:
    """For each query the rows of its `wanted` largest products, and those that rounding may have put behind.

    Args:
        vectors: (rows, dims) float32.
        queries: (queries, dims) float32.
        longest: norm of the longest vector.
    """
    dims = vectors.shape[1]
    for start in range(0, len(queries), _QUERIES):
        batch = queries[start : start + _QUERIES]
        # Twice the error of a float32 sum of `dims` products (Higham, 2002, section 3.1), and a little.
        slack = 2.1 * (dims + 2) * 2.0**-24 * longest * np.linalg.norm(batch, axis=1) + 1e-37
        best = Best(len(batch), wanted, slack)
        step = max(_SCORES // len(batch), 1)
        for first in range(0, len(vectors), step):
            best.add(batch @ vectors[first : first + step].T, first)
        yield from best.rows()


def ranked(vectors: np.ndarray, rows: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of some rows and their products with a query, in float64; of equal ones the lower row.

    A row's product doesn't depend on where it stands, so equal vectors have equal products.

    Args:
        vectors: (all rows, dims) float32. rows: int64, ascending. query: (dims,) float32.
    """
    found = np.einsum("rd,d->r", vectors.take(rows, axis=0).astype(np.float64), query.astype(np.float64))
    order = np.argsort(-found, kind="stable")[:k]
    return rows[order], found[order]


def blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """All rows, some at a time."""
    return (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))

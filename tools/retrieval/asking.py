"""Which rows of an index ask for their neighbours when its recall is measured."""

from __future__ import annotations

import numpy as np

from .record import Record

QUERIES = 256  # rows, at most


def sample(rows: int, seed: int = 0) -> np.ndarray:
    """Numbers of rows that ask, ascending."""
    return np.sort(np.random.default_rng(seed).choice(rows, min(rows, QUERIES), replace=False))


def held(record: Record) -> np.ndarray:
    """The rows that a graph is kept without, and that ask: some of those that it was built with, ascending.

    A question is no row of the index. A row asks from its own place in the graph, whose links are its
    neighbours: it finds more of them than a question does (of 200,000 rows 0.97 where questions found 0.93).
    """
    return sample(record.chunks[0].rows) if record.kind == "hnsw" else np.empty(0, np.int64)

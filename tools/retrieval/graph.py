"""A hierarchical navigable small world graph (Malkov and Yashunin, 2018), kept by usearch.

usearch, and not hnswlib or faiss: its file is mapped as it lies and can be added to after it is read, and the
kernels that it is built on (numkong) are those of int8 and binary codes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import BackendError, BundleError

_DTYPE = "f16"  # of the graph's own copy of the vectors; what it finds is ranked anew
_EXPANSION = 40  # vectors in sight while one is added, as in faiss; usearch's 128 take thrice as long
_BLOCK = 8192  # vectors added at a time


class Graph:
    """Vectors with links to near ones, by the numbers of their rows."""

    def __init__(self, dims: int, threads: int) -> None:
        self._index = usearch().Index(ndim=dims, metric="ip", dtype=_DTYPE, expansion_add=_EXPANSION)
        self._threads = threads

    @classmethod
    def opened(cls, path: Path, dims: int, rows: int, threads: int, view: bool = True) -> Graph:
        """A file that `save` wrote: mapped, or with view=False read, so that it can be added to.

        Raises:
            BundleError: it holds something else.
        """
        graph = cls(dims, threads)
        try:
            (graph._index.view if view else graph._index.load)(str(path))
        except Exception as error:  # usearch raises what its C++ throws
            raise BundleError(f"{path} is no graph that usearch reads: build the index again") from error
        if (graph._index.ndim, len(graph._index)) != (dims, rows):
            raise BundleError(f"{path} holds other vectors than the index: build it again")
        return graph

    def add(self, vectors: np.ndarray, rows: np.ndarray, first: int = 0) -> None:
        """Some rows of (rows, dims) float32, numbered from `first` on."""
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            self._index.add((first + some).astype(np.uint64), vectors[some], threads=self._threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def nearest(self, queries: np.ndarray, wanted: int) -> list[np.ndarray]:
        """Up to `wanted` rows for each query, int64 in ascending order; as many are kept in sight meanwhile.

        Args:
            queries: (queries, dims) float32.
        """
        if not len(self._index):
            return [np.empty(0, np.int64)] * len(queries)
        found = self._index.search(queries, min(wanted, len(self._index)), threads=self._threads)
        # One query's answer is a class of its own, and a batch's is padded behind `counts`.
        one = len(queries) == 1
        keys = [found.keys] if one else [row[:n] for row, n in zip(found.keys, found.counts, strict=True)]
        return [np.unique(row.astype(np.int64)) for row in keys]


def usearch() -> Any:
    """The package that keeps graphs. Raises BackendError where it is missing."""
    with contextlib.suppress(ImportError):
        import onnxruntime  # noqa: F401  (loaded behind usearch 2.26, onnxruntime 1.31 ends the process)
    try:
        import usearch.index as package
    except ImportError as error:
        raise BackendError(
            "hnsw indexes need the package usearch: pip install graphwright[retrieval]"
        ) from error
    return package

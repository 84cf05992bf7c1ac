"""Searching an index: candidates by its kind, ranked by the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...ir.errors import InputError, short
from . import store
from .best import Best
from .codes import Binary, Int8, numkong
from .graph import Graph, usearch
from .record import CODES, VECTORS, Record
from .vectors import asked, ranked, whole

CODERS: dict[str, type[Int8] | type[Binary]] = {"int8": Int8, "binary": Binary}


def check_installed(kind: str) -> None:
    """Raises BackendError where a package that an index of this kind needs is missing."""
    if kind in CODERS:
        numkong()
    if kind == "hnsw":
        usearch()


class Searcher:
    """The vectors of an index, mapped.

    Args:
        directory: its files, verified before.
        record: what they are.
        threads: of a scan of codes, or a search in a graph; what is exact takes those of NumPy's BLAS.

    Raises:
        BackendError: what searches it is not installed.
    """

    def __init__(self, directory: Path, record: Record, threads: int) -> None:
        check_installed(record.kind)
        self.record, self._threads = record, threads
        self.vectors = store.mapped(directory, record, VECTORS, "<f4", record.dims)
        self._coder = None
        if record.kind in CODERS:
            self._coder = CODERS[record.kind](store.codebook(directory))
            self._codes = store.mapped(directory, record, CODES, "u1", self._coder.width)
        if record.kind == "hnsw":
            self._graph = Graph.opened(directory / record.graph, record.dims, record.rows, threads)

    def search(
        self, queries: np.ndarray, k: int = 10, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores as `Index.search` gives them. Raises InputError as it does."""
        for name, value in (("k", k), ("effort", 1 if effort is None else effort)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is a whole number from 1, not {short(value)}")
        batch = asked(queries, self.record)
        k = min(k, len(self.vectors))
        wanted = min(len(self.vectors), k * (effort or self.record.effort))
        rows, scores = np.empty((len(batch), k), np.int64), np.empty((len(batch), k))
        for number, found in enumerate(self.candidates(batch, wanted)):
            if len(found) < k:  # a graph may have parts that no way leads to
                found = next(whole(self.vectors, batch[number : number + 1], k, self.record.longest))
            rows[number], scores[number] = ranked(self.vectors, found, batch[number], k)
        return rows, scores

    def candidates(self, queries: np.ndarray, wanted: int) -> Iterator[np.ndarray]:
        """For each query, rows in ascending order of their numbers, int64: about `wanted` of them.

        Args:
            queries: (queries, dims) float32, as the stored vectors are.
        """
        if self.record.kind == "hnsw":
            yield from self._graph.nearest(queries, wanted)
        elif self._coder is None:
            yield from whole(self.vectors, queries, wanted, self.record.longest)
        else:
            for start in range(0, len(queries), self._coder.batch):
                batch = queries[start : start + self._coder.batch]
                best = Best(len(batch), wanted)
                for first, scores in self._coder.scan(self._codes, batch, self._threads):
                    best.add(scores, first)
                yield from best.rows()

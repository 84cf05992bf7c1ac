"""Searching an index: candidates by its kind, ranked by the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...ir.errors import InputError, short
from . import store
from .asking import held
from .binary import Binary
from .graph import Graph, usearch
from .int8 import Int8, numkong
from .record import CODES, VECTORS, Record
from .shares import shared
from .vectors import asked, ranked, whole

_TOGETHER = 256  # queries of which candidates are held

CODERS: dict[str, type[Int8] | type[Binary]] = {"int8": Int8, "binary": Binary}


def check_installed(kind: str) -> None:
    """Raises BackendError where a package that an index of this kind needs is missing."""
    if kind == "int8":
        numkong()
    if kind == "hnsw":
        usearch()


class Searcher:
    """The vectors of an index, mapped.

    Args:
        directory: its files, verified before.
        record: what they are.
        threads: of a scan of codes, a search in a graph and ranking; exact products take those of NumPy's
            BLAS.

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
            self._held = held(record)
            self._apart = self.vectors[self._held]
            inside = record.rows - len(self._held)
            self._graph = Graph.opened(directory / record.graph, record.dims, inside, threads)

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
        for start in range(0, len(batch), _TOGETHER):
            for number, best in enumerate(self.best(batch[start : start + _TOGETHER], wanted, k), start):
                rows[number], scores[number] = best
        return rows, scores

    def best(self, queries: np.ndarray, wanted: int, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each query the k best of about `wanted` candidates, and their scores.

        Args:
            queries: (queries, dims) float32, as the stored vectors are.
        """
        candidates = list(self.candidates(queries, wanted))

        def best(number: int) -> tuple[np.ndarray, np.ndarray]:
            return ranked(self.vectors, candidates[number], queries[number], k)

        return shared(best, range(len(queries)), self._threads)

    def candidates(self, queries: np.ndarray, wanted: int) -> Iterator[np.ndarray]:
        """For each query, rows in ascending order of their numbers, int64: about `wanted` of them.

        Args:
            queries: (queries, dims) float32, as the stored vectors are.
        """
        if self.record.kind == "hnsw":
            yield from self._linked(queries, wanted)
        elif self._coder is None:
            yield from whole(self.vectors, queries, wanted, self.record.longest)
        else:
            yield from self._coder.nearest(self._codes, queries, wanted, self._threads)

    def _linked(self, queries: np.ndarray, wanted: int) -> Iterator[np.ndarray]:
        """By the graph, and of the rows that it is kept without."""
        longest, inside = self.record.longest, len(self.vectors) - len(self._held)
        beside = whole(self._apart, queries, min(wanted, len(self._apart)), longest)
        found = self._graph.nearest(queries, wanted)
        for query, linked, rows in zip(queries, found, beside, strict=True):
            if len(linked) < min(wanted, inside):  # a graph may have parts that no way leads to
                yield next(whole(self.vectors, query[None], wanted, longest))
            else:
                yield np.union1d(linked, self._held[rows])

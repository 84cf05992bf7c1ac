"""Vectors in one bit a dimension, compared by how many differ; what is near so is ranked anew by the vectors.

The bits of the first dimensions are counted for every row, and all bits for the rows that are near by those:
of 384 dimensions a search reads a third. Counts are NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .shares import shared

_FIRST = 16  # bytes of a code that are looked at in every row: counts of 128 bits fit a byte
_ROWS = 1 << 17  # of a block: 2 MB
_SAMPLE = 4096  # rows that say how near the nearest are
_KEPT = 8  # rows whose whole code is looked at, for each that is wanted
_FEWEST = 512  # of them: the sample knows fewer badly


class Binary:
    """The sign of each dimension about its mean.

    book: (dims,) float32 means. Taking it from every row moves all products with a query alike.
    """

    def __init__(self, book: np.ndarray) -> None:
        self.book = book
        self._heads: tuple[int, np.ndarray, np.ndarray] = (0, np.empty(0), np.empty(0))

    @classmethod
    def fit(cls, blocks: Iterator[np.ndarray]) -> Binary:
        """blocks: (rows, dims) float32, all of the index."""
        sums = [(block.sum(axis=0, dtype=np.float64), len(block)) for block in blocks]
        total = np.sum([each for each, _ in sums], axis=0) / sum(rows for _, rows in sums)
        return cls(total.astype(np.float32))

    @property
    def width(self) -> int:
        """Bytes a row."""
        return -(-len(self.book) // 8)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(rows, width) uint8."""
        return np.packbits(vectors > self.book, axis=1)

    def nearest(
        self, codes: np.ndarray, queries: np.ndarray, wanted: int, threads: int = 1
    ) -> Iterator[np.ndarray]:
        """For each query the `wanted` rows of which the fewest bits differ, among those of which few of the
        first bits do; of equal ones the lower row. Rows are int64 in ascending order of their numbers.

        Args:
            codes: (rows, width) uint8, as encoded; the same in every call, being laid out once.
            queries: (queries, dims) float32.
        """
        heads, sample = self._laid(codes)
        asked = self.encode(queries)
        starts = _words(asked)
        at = min(max(_KEPT * wanted, _FEWEST) * len(sample.T) // len(codes), len(sample.T) - 1)
        bounds = [int(np.partition(_differing(sample, each), at)[at]) for each in starts.T]

        def near(task: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            query, first = task
            block = heads[:, first : first + _ROWS]
            rows = first + np.flatnonzero(_differing(block, starts[:, query]) <= bounds[query])
            bits = np.bitwise_count(codes.take(rows, axis=0) ^ asked[query])
            return rows, bits.sum(axis=1, dtype=np.uint16)

        blocks = range(0, len(codes), _ROWS)
        found = shared(near, [(query, first) for query in range(len(asked)) for first in blocks], threads)
        for query in range(len(asked)):
            parts = found[query * len(blocks) : (query + 1) * len(blocks)]
            while sum(len(rows) for rows, _ in parts) < min(wanted, len(codes)):  # the sample was too hopeful
                bounds[query] += 1
                parts = [near((query, first)) for first in blocks]
            rows, bits = (np.concatenate(each) for each in zip(*parts, strict=True))
            yield np.sort(rows[np.argsort(bits, kind="stable")[:wanted]])

    def _laid(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first bits of all rows, word by word, and those of the sample."""
        if self._heads[0] != len(codes):
            heads = _words(codes)
            self._heads = len(codes), heads, heads[:, :: max(1, len(codes) // _SAMPLE)].copy()
        return self._heads[1:]


def _words(codes: np.ndarray) -> np.ndarray:
    """(words, rows) uint64 of the first bytes of (rows, width) codes."""
    width = min(codes.shape[1], _FIRST)
    whole = np.zeros((len(codes), -(-width // 8) * 8), np.uint8)
    whole[:, :width] = codes[:, :width]
    return np.ascontiguousarray(whole.view(np.uint64).T)


def _differing(words: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(rows,) uint8: how many bits of (words, rows) differ from a query's (words,)."""
    found = np.bitwise_count(words[0] ^ query[0])
    for row, word in zip(words[1:], query[1:], strict=True):
        found += np.bitwise_count(row ^ word)
    return found

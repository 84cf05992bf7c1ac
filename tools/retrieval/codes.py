"""Vectors in fewer bits, and products of such codes: int8 by a scale a dimension, one bit a dimension.

Both keep the order of inner products as far as it goes; what they find is ranked anew by the vectors. Kernels
are numkong's, whose sums of integers are exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from ...ir.errors import BackendError

_SCORES = 1 << 20  # of a block: 4 MB, which caches hold
_PACKED = 1 << 16  # rows of bits that are laid out together


class Int8:
    """Codes in -127..127, scaled so that the largest value of a dimension is 127.

    book: (dims,) float32 scales. A query is multiplied by it, and rounded by a scale of its own.
    """

    batch = 64  # queries of one scan

    def __init__(self, book: np.ndarray) -> None:
        self.book = book

    @classmethod
    def fit(cls, blocks: Iterator[np.ndarray]) -> Int8:
        """blocks: (rows, dims) float32, all of the index."""
        most = np.max([np.abs(block).max(axis=0) for block in blocks], axis=0)
        return cls(np.where(most > 0, most / 127, 1).astype(np.float32))

    @property
    def width(self) -> int:
        """Bytes a row."""
        return len(self.book)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(rows, width) uint8, bytes of int8; what an index made before has no range for is clipped."""
        return np.clip(np.rint(vectors / self.book), -127, 127).astype(np.int8).view(np.uint8)

    def scan(
        self, codes: np.ndarray, queries: np.ndarray, threads: int = 1
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (queries, rows) int32 scores), block by block.

        Args:
            codes: (rows, width) uint8, as encoded.
            queries: (queries, dims) float32.
        """
        kernels = numkong()
        scaled = queries * self.book
        most = np.abs(scaled).max(axis=1, keepdims=True)
        asked = np.rint(scaled * (127 / np.where(most > 0, most, 1))).astype(np.int8)
        packed = kernels.dots_pack(asked, "int8")
        step = min(_SCORES // len(queries), max(1, -(-len(codes) // threads)))

        def scored(start: int) -> tuple[int, np.ndarray]:
            rows = codes[start : start + step].view(np.int8)
            return start, np.asarray(kernels.dots_packed(rows, packed)).T

        yield from _shared_out(scored, range(0, len(codes), step), threads)


class Binary:
    """The sign of each dimension about its mean, compared by the number of bits that differ.

    book: (dims,) float32 means. Taking it from every row moves all products with a query alike.
    """

    batch = 16

    def __init__(self, book: np.ndarray) -> None:
        self.book = book
        self._packed: tuple[int, list[Any]] = (0, [])

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

    def scan(
        self, codes: np.ndarray, queries: np.ndarray, threads: int = 1
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (queries, rows) int32 scores: minus the Hamming distance), block by block.

        Args:
            codes: (rows, width) uint8, as encoded; the same in every call, being laid out once.
            queries: (queries, dims) float32.
        """
        kernels = numkong()
        asked = self.encode(queries)
        laid = self._laid(codes)

        def scored(number: int) -> tuple[int, np.ndarray]:
            found = np.asarray(kernels.hammings_packed(asked, laid[number])).view(np.int32)
            return number * _PACKED, np.negative(found, out=found)

        yield from _shared_out(scored, range(len(laid)), threads)

    def _laid(self, codes: np.ndarray) -> list[Any]:
        if self._packed[0] != len(codes):
            starts = range(0, len(codes), _PACKED)
            laid = [numkong().hammings_pack(codes[start : start + _PACKED], "uint1") for start in starts]
            self._packed = len(codes), laid
        return self._packed[1]


def _shared_out(
    scored: Callable[[int], tuple[int, np.ndarray]], blocks: Sequence[int], threads: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Scores of blocks in order, a thread a block: the kernels' own threads cost more than they bring where
    few queries are asked (200,000 rows, one query, two threads: 5.8 ms; here 2.4, and 4.1 by one thread)."""
    if min(threads, len(blocks)) == 1:
        yield from map(scored, blocks)
        return
    for start in range(0, len(blocks), threads):
        yield from _pool(threads, os.getpid()).map(scored, blocks[start : start + threads])


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"graphwright-{process}")


def numkong() -> Any:
    """The package of kernels. Raises BackendError where it is missing."""
    try:
        import numkong
    except ImportError as error:
        raise BackendError(
            "int8 and binary indexes need the package numkong: pip install graphwright[retrieval]"
        ) from error
    return numkong

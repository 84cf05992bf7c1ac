"""Vectors in int8 by a scale a dimension, and products of such codes; their best are ranked by the vectors.

Kernels are numkong's, whose sums of integers are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...ir.errors import BackendError
from .best import Best
from .shares import shared

_SCORES = 1 << 20  # of a block: 4 MB, which caches hold
_BATCH = 64  # queries of one scan
_PACKED = 3  # queries from which on they are laid out


class Int8:
    """Codes in -127..127, scaled so that the largest value of a dimension is 127.

    book: (dims,) float32 scales. A query is multiplied by it, and rounded by a scale of its own.
    """

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

    def nearest(
        self, codes: np.ndarray, queries: np.ndarray, wanted: int, threads: int = 1
    ) -> Iterator[np.ndarray]:
        """For each query the `wanted` rows of the largest products, of equal ones the lower row. Rows are
        int64, in ascending order of their numbers.

        Args:
            codes: (rows, width) uint8, as encoded.
            queries: (queries, dims) float32.
        """
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            best = Best(len(batch), wanted)
            for first, scores in self.scan(codes, batch, threads):
                best.add(scores, first)
            yield from best.rows()

    def scan(
        self, codes: np.ndarray, queries: np.ndarray, threads: int = 1
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (queries, rows) products, whole numbers), block by block; args as `nearest`.

        A thread takes a block: the kernels' own threads cost more than they bring where few queries are asked
        (200,000 rows, one query, two threads: 5.8 ms; here 2.4, and 4.1 by one thread).
        """
        kernels = numkong()
        scaled = queries * self.book
        most = np.abs(scaled).max(axis=1, keepdims=True)
        asked = np.rint(scaled * (127 / np.where(most > 0, most, 1))).astype(np.int8)
        # Without VNNI, laid out queries are multiplied four at a time: one takes as long as four.
        packed = kernels.dots_pack(asked, "int8") if len(asked) >= _PACKED else None
        step = min(_SCORES // len(queries), max(1, -(-len(codes) // threads)))

        def scored(start: int) -> tuple[int, np.ndarray]:
            rows = codes[start : start + step].view(np.int8)
            if packed is None:
                return start, np.asarray(kernels.cdist(asked, rows, "dot"))
            return start, np.asarray(kernels.dots_packed(rows, packed)).T

        blocks = range(0, len(codes), step)
        for number in range(0, len(blocks), threads):
            yield from shared(scored, blocks[number : number + threads], threads)


def numkong() -> Any:
    """The package of kernels. Raises BackendError where it is missing."""
    try:
        import numkong
    except ImportError as error:
        raise BackendError(
            "int8 indexes need the package numkong: pip install graphwright[retrieval]"
        ) from error
    return numkong

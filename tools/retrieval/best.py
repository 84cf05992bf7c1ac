"""The best rows of each query out of blocks of scores, without sorting what can't be among them."""

from __future__ import annotations

import numpy as np

_SAMPLE = 4096  # scores of a block that a first bound is taken from
_MOST = 64  # times what is wanted, kept before the bound is tightened


class Best:
    """Collects, for each query, the rows of the `wanted` largest scores.

    Every score below a bound that `wanted` others are known to reach is dropped unseen; the bound comes from
    a sample of the first block and rises as rows are collected.

    Args:
        queries: how many, below 65,536.
        wanted: rows a query.
        slack: (queries,) how far below the last wanted score a row is kept too. None: exactly `wanted` rows,
            where scores tie those of the lower numbers.
    """

    def __init__(self, queries: int, wanted: int, slack: np.ndarray | None = None) -> None:
        self.wanted = wanted
        self.slack = slack
        self._kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(queries)]
        self._count = 0
        self._bound: np.ndarray | None = None

    def add(self, scores: np.ndarray, first: int) -> None:
        """Take in the scores of further rows, in ascending order of rows.

        Args:
            scores: (queries, rows), integers or floats without NaN, larger is better, in either memory order.
            first: the number of the first row.
        """
        count, rows = scores.shape
        if self._bound is None and rows >= self.wanted:
            sample = scores[:, :: max(1, rows // max(_SAMPLE, 4 * self.wanted))]
            self._raise(np.partition(sample, sample.shape[1] - self.wanted, axis=1)[:, -self.wanted])
        by_row = scores.flags.f_contiguous and not scores.flags.c_contiguous
        laid = scores.T if by_row else scores
        if self._bound is None:
            flat = np.arange(scores.size)
        else:
            bound = self._bound[None, :] if by_row else self._bound[:, None]
            flat = np.flatnonzero(laid >= bound)
        row, query = (flat // count, flat % count) if by_row else (flat % rows, flat // rows)
        self._collect(query.astype(np.uint16), row + first, laid.reshape(-1)[flat])
        if self._count > _MOST * count * self.wanted:
            self._tighten()

    def rows(self) -> list[np.ndarray]:
        """Each query's rows in ascending order of their numbers, int64."""
        return [self._cut(query)[0] for query in range(len(self._kept))]

    def _collect(self, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> None:
        if len(self._kept) > 1:
            order = np.argsort(query, kind="stable")
            query, row, score = query[order], row[order], score[order]
        ends = np.searchsorted(query, np.arange(len(self._kept) + 1))
        for kept, start, stop in zip(self._kept, ends[:-1], ends[1:], strict=True):
            kept.append((row[start:stop], score[start:stop]))
        self._count += len(row)

    def _tighten(self) -> None:
        bounds = []
        for query in range(len(self._kept)):
            row, score = self._cut(query)
            self._kept[query] = [(row, score)]
            bounds.append(np.partition(score, len(score) - self.wanted)[-self.wanted])
        self._raise(np.array(bounds))
        self._count = sum(len(kept[0][0]) for kept in self._kept)

    def _raise(self, last: np.ndarray) -> None:
        """last: the lowest of `wanted` scores, a query each."""
        self._bound = last if self.slack is None else last - self.slack.astype(last.dtype)

    def _cut(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        kept = self._kept[query]
        row = np.concatenate([rows for rows, _ in kept])
        score = np.concatenate([scores for _, scores in kept])
        if len(row) <= self.wanted:
            return row, score
        last = np.partition(score, len(score) - self.wanted)[-self.wanted]
        if self.slack is not None:
            use = score >= last - self.slack[query].astype(score.dtype)
        else:
            use = score > last
            use[np.flatnonzero(score == last)[: self.wanted - int(use.sum())]] = True
        return row[use], score[use]

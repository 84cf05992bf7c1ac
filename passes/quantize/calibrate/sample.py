"""What is kept of an activation's rows while they stream past: a fair sample, and each feature's extremes."""

from __future__ import annotations

import numpy as np

from .ranges import MinMax

ROWS = 256


class Sample(MinMax):
    """Extremes of each feature, and a uniform sample of the rows (Vitter, 1985, algorithm R).

    Args:
        features: of a row.
        rows: of the sample, at most.
        seed: equal seeds and equal streams keep equal rows.
    """

    def __init__(self, features: int, rows: int = ROWS, seed: int = 0) -> None:
        super().__init__(features)
        self._kept = np.empty((rows, features), np.float32)
        self._seen = 0
        self._draw = np.random.default_rng(seed)

    @property
    def rows(self) -> np.ndarray:
        """The sample, float32 (rows, features)."""
        return self._kept[: self._seen]

    def _take(self, rows: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        free = max(len(self._kept) - self._seen, 0)
        first, rest = rows[:free], rows[free:]
        self._kept[self._seen : self._seen + len(first)] = first
        numbers = np.arange(self._seen + len(first), self._seen + len(rows))
        places = self._draw.integers(0, numbers + 1)
        chosen = places < len(self._kept)
        self._kept[places[chosen]] = rest[chosen]  # of several for one place the last stays
        self._seen += len(rows)

"""Which tokens of a call are real, as functions that leave padding out are told. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .fitting import aligned


class Kept:
    """The tokens that a mask keeps, numbered as in a function's own (batch, length).

    Args:
        shape: the function's batch and length.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.batch, self.length = shape
        self._whole: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def of(self, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows [kept] int32, starts [batch + 1] int32) of a call: its kept tokens in order, and where each
        sequence begins among them. Rows that the call doesn't have keep nothing.

        Args:
            real: (batch, length) booleans of the call, no larger than the function's.
        """
        if real.all():
            if real.shape not in self._whole:
                self._whole[real.shape] = self._found(real)
            return self._whole[real.shape]
        if not real.any():
            real = np.zeros(real.shape, bool)
            real[0, 0] = True  # no function runs on nothing
        return self._found(real)

    def _found(self, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sequence, place = np.nonzero(real)
        rows, starts = aligned([len(place)], "int32"), aligned([self.batch + 1], "int32")
        rows[:] = sequence * self.length + place
        np.cumsum(real.sum(1), out=starts[1 : len(real) + 1])
        starts[len(real) + 1 :] = starts[len(real)]
        return rows, starts

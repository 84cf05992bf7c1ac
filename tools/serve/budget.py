"""What one call of a model may hold, and which of the waiting texts go into it. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PADDING = 1 / 8  # of the real tokens: so much padding costs less than a call of its own
FEW = 16  # tokens of padding that do, however few real ones there are


@dataclass(frozen=True)
class Budget:
    """Limits of one call.

    tokens: places of a call, a row's being as many as the longest has tokens. rows: texts. fixed: the length
    of every row, where the model knows only one.
    """

    tokens: int
    rows: int = 1 << 20
    fixed: int | None = None

    def holds(self, rows: int, longest: int) -> bool:
        """Whether a call of so many texts, the longest of so many tokens, is within the limits."""
        return rows <= self.rows and rows * (self.fixed or longest) <= self.tokens

    def choose(self, lengths: Sequence[int]) -> list[int]:
        """Indices of what goes into the next call: the first, which has waited longest, and of the others
        those nearest in length, as many as it holds with hardly any padding.

        Args:
            lengths: tokens of each text, in the order of arrival. The first alone is within the limits.
        """
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        low = high = order.index(0)
        tokens = lengths[0]
        while True:
            fits = []
            for at in (low - 1, high + 1):
                if not 0 <= at < len(order):
                    continue
                more, longest = tokens + lengths[order[at]], lengths[order[max(at, high)]]
                rows = high - low + 2
                if self.holds(rows, longest) and self._alike(rows * longest, more):
                    fits.append(at)
            if not fits:
                return sorted(order[low : high + 1])
            at = min(fits, key=lambda at: abs(lengths[order[at]] - lengths[0]))
            tokens += lengths[order[at]]
            low, high = min(low, at), max(high, at)

    def _alike(self, places: int, tokens: int) -> bool:
        """Whether texts are of like length; where all are computed at one length, any are."""
        return self.fixed is not None or places - tokens <= max(PADDING * tokens, FEW)

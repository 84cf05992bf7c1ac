"""What one call of a model may hold, and which of the waiting texts go into it. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits of one call.

    tokens: that the model computes. rows: texts. packs: the model's token-wise layers run on real tokens
    alone, so those are what counts; attention still pads, so places count against twice the tokens. Otherwise
    every row costs as many tokens as the longest. fixed: the length of every row, where the model knows only
    one.
    """

    tokens: int
    rows: int = 1 << 20
    packs: bool = False
    fixed: int | None = None

    def holds(self, rows: int, tokens: int, longest: int) -> bool:
        """Whether a call of so many texts and real tokens, the longest of so many, is within the limits."""
        if rows > self.rows:
            return False
        places = rows * (self.fixed or longest)
        if not self.packs:
            return places <= self.tokens
        return tokens <= self.tokens and places <= 2 * self.tokens

    def choose(self, lengths: Sequence[int]) -> list[int]:
        """Indices of what goes into the next call: the first, which has waited longest, and of the others
        those nearest in length, as many as it holds.

        Args:
            lengths: tokens of each text, in the order of arrival. The first alone is within the limits.
        """
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        low = high = order.index(0)
        tokens = lengths[0]
        while True:
            options = [at for at in (low - 1, high + 1) if 0 <= at < len(order)]
            fits = []
            for at in options:
                longest = max(lengths[order[at]], lengths[order[high]])
                if self.holds(high - low + 2, tokens + lengths[order[at]], longest):
                    fits.append(at)
            if not fits:
                return sorted(order[low : high + 1])
            at = min(fits, key=lambda at: abs(lengths[order[at]] - lengths[0]))
            tokens += lengths[order[at]]
            low, high = min(low, at), max(high, at)

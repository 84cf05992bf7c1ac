"""The memory of a text in tensors of one size: what its places hold, and what they hold after a segment.

A text's last `whole` tokens or up to `rate` - 1 more stand at the end of the memory, and ahead of them
`compressed` means of `rate` older tokens each. One number tells which places are filled: how many tokens of
the text came before. Since means are made in order, `rate` tokens at a time, how a text was cut into segments
changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.gathered import rows


@dataclass(frozen=True)
class Memory:
    """whole: tokens kept as they were, at least. compressed: means of older ones. rate: tokens in a mean."""

    whole: int
    compressed: int = 0
    rate: int = 1

    @property
    def recent(self) -> int:
        """Places for tokens as they were: those that don't make up a mean yet are among them."""
        return self.whole + self.rate - 1

    @property
    def places(self) -> int:
        return self.compressed + self.recent

    @property
    def span(self) -> int:
        """Tokens that it remembers of a long text, at most."""
        return self.compressed * self.rate + self.recent

    def filled(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """(means, tokens as they were) that are remembered of texts of so many tokens, int64 like count."""
        groups = self._groups(count)
        return groups.clamp(max=self.compressed), count - groups * self.rate

    def _groups(self, count: Tensor) -> Tensor:
        """How many times `rate` tokens went out of the recent ones."""
        over = (count - self.whole).clamp(min=0)
        return over if self.rate == 1 else torch.div(over, self.rate, rounding_mode="trunc")

    def ahead(self, count: Tensor) -> Tensor:
        """Tokens from the first remembered one to the segment, int64 like count."""
        means, recent = self.filled(count)
        return means * self.rate + recent

    def remembered(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """(bool (batch, places), which are filled; int64 (batch, places), the token that each stands for,
        from the first remembered one; of a mean the one in its middle).

        Args:
            count: int64 (batch,), tokens of each text before this segment.
        """
        means, recent = (x[:, None] for x in self.filled(count))
        place = torch.arange(self.recent) - (self.recent - recent)
        seen, at = place >= 0, means * self.rate + place
        if self.compressed:
            slot = torch.arange(self.compressed) - (self.compressed - means)
            seen = torch.cat([slot >= 0, seen], 1)
            at = torch.cat([slot * self.rate + (self.rate - 1) // 2, at], 1)
        return seen, at.clamp(min=0)

    def bias(self, count: Tensor, keep: Tensor | None, length: int) -> Tensor:
        """float (batch, 1, length, places + length), added to scores: later tokens, padding and empty places
        are hidden, and a mean counts for its tokens. Where nothing is seen, all is: a mean, not NaN.

        Args:
            keep: bool (batch, length), which places of the segment hold a token; None where all do.
        """
        places, rows = torch.arange(length), count.shape[0]
        seen = (places[None] <= places[:, None])[None]
        if keep is not None:
            seen = seen & keep[:, None]
        old = self.remembered(count)[0][:, None]
        shown = torch.cat([old.expand(rows, length, self.places), seen.expand(rows, length, length)], 2)
        bias = torch.where(shown, 0.0, torch.finfo(torch.float32).min)
        if self.rate > 1:
            means = torch.arange(self.places + length) < self.compressed
            bias = bias + torch.where(means, math.log(self.rate), 0.0)
        return bias[:, None]

    def order(self, count: Tensor, keep: Tensor | None, length: int) -> Tensor:
        """int64 (batch, recent + length): where the recent tokens and the segment's stand, those of the text
        in their order at the end. No two sort alike, so every way of sorting gives the same.

        Args:
            keep: bool (batch, length), which places of the segment hold a token; None where all do.
        """
        if keep is None:  # empty places are ahead already
            return torch.arange(self.recent + length).expand(count.shape[0], self.recent + length)
        seen = torch.cat([self.remembered(count)[0][:, self.compressed :], keep], 1)
        places = torch.arange(seen.shape[1])
        return torch.sort(seen.to(torch.int64) * seen.shape[1] + places, dim=1, stable=True)[1]

    def sources(self, count: Tensor, order: Tensor, fresh: Tensor) -> Tensor:
        """int64 (batch, recent + compressed * (1 + rate)): of [memory, segment] the rows that the next memory
        is made of: recent tokens, old means that move, tokens of new means.

        Args:
            order: as `order` gives it. fresh: int64 (batch,), tokens in the segment.
        """
        kept = order[:, order.shape[1] - self.recent :] + self.compressed
        if not self.compressed:
            return kept
        new = self.new(count, fresh)
        moved = (torch.arange(self.compressed) + new).clamp(max=self.compressed - 1)
        first = order.shape[1] - (self.filled(count)[1] + fresh)[:, None]
        group = torch.arange(self.compressed) - (self.compressed - new)
        token = first[:, :, None] + group[:, :, None] * self.rate + torch.arange(self.rate)
        token = token.reshape(token.shape[0], self.compressed * self.rate).clamp(min=0)
        return torch.cat([kept, moved, order.gather(1, token) + self.compressed], 1)

    def new(self, count: Tensor, fresh: Tensor) -> Tensor:
        """int64 (batch, 1): means that a segment makes."""
        return (self._groups(count + fresh) - self._groups(count))[:, None]

    def next(self, both: Tensor, sources: Tensor, new: Tensor, count: Tensor) -> Tensor:
        """(batch, places, features): the memory after a segment, zeros where it is not filled.

        Args:
            both: (batch, places + length, features), memory and segment. sources: as `sources` gives them.
            new: int64 (batch, 1), means that the segment makes. count: int64 (batch,), tokens so far.
        """
        found = rows(both[:, None], sources[:, None])[:, 0]
        if self.compressed:
            recent, old, tokens = found.split([self.recent, self.compressed, self.compressed * self.rate], 1)
            means = tokens.unflatten(1, (self.compressed, self.rate)).mean(2)
            fresh = torch.arange(self.compressed) >= self.compressed - new
            found = torch.cat([torch.where(fresh[:, :, None], means, old), recent], 1)
        return torch.where(self.remembered(count)[0][:, :, None], found, 0.0)

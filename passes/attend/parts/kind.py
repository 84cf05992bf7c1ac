"""What a kind of attention is: a pattern of keys that each query sees, or another way to mix values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .site import Site


@dataclass(frozen=True)
class Heads:
    """What an attention is given; a mixing kind traces over it, so all sizes of texts are symbols.

    q, k: (batch, heads, length, head_dim), rotary included, heads of keys repeated for those of queries.
    v: (batch, heads, length, value_dim). x: (batch, length, hidden), what the queries are projected from.
    keep: bool (batch, length), which places hold a token; None where all do. causal: places look back only.
    scale: what multiplies q k^T.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    x: Tensor
    keep: Tensor | None
    causal: bool
    scale: float


Seen = Callable[[], Iterator[Heads]]
"""A site's heads on the texts, feed by feed, as often as they are asked for."""


@dataclass(frozen=True)
class Kind:
    """Frozen dataclasses, whose fields are the kind's options."""

    looks_back: ClassVar[bool] = True
    """Whether there is a form of it that looks back only."""
    needs_texts: ClassVar[bool] = False
    """Whether it starts from what texts show."""

    def unfit(self, site: Site) -> str:
        """Why it cannot stand at a site; empty where it can."""
        return ""

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Its tensors at a site, by name: nn.Parameters learn, others don't.

        Args:
            seen: None where no texts were given.
            generator: what is drawn is drawn from it.
        """
        return {}


@dataclass(frozen=True)
class Pattern(Kind, ABC):
    """Some keys of each query. The pattern of a short text is the beginning of that of a longer one, and
    every query sees itself."""

    @abstractmethod
    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        """Which keys queries see, bool (queries, keys), padding and later keys left aside.

        Args:
            i, j: int64 (length, 1) and (1, length), the places of queries and keys.
        """


@dataclass(frozen=True)
class Mixing(Kind, ABC):
    """Values mixed in another way than by a softmax over all keys."""

    @abstractmethod
    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        """(batch, heads, length, value_dim); what it holds at padding is nobody's concern, but finite."""

    def unfit(self, site: Site) -> str:
        return site.more

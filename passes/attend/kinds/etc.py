"""Keys near the query, and a memory that stands in front of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..parts.kind import Pattern
from ..parts.limits import least


@dataclass(frozen=True)
class Etc(Pattern):
    """The global-local attention of ETC (Ainslie et al., 2020, arXiv:2004.08483, section 3.2), as a pattern:
    the first tokens are its global memory. What is not ETC's is that they are tokens of the text and not an
    input of their own, and that all four pieces of attention have one softmax and the model's own projections
    and positions, where ETC learns other ones for the memory and labels of relative positions.

    window: places on each side of the query's own (for a model that looks back only: before it).
    global_tokens: the memory; they see each other. segment: places of the text that one of them stands for,
    one after the other, as ETC's stand for sentences: they and it see each other alone; 0, all see all of it.
    """

    window: int = 84
    global_tokens: int = 64
    segment: int = 0

    def __post_init__(self) -> None:
        least(self, window=0, global_tokens=1, segment=0)

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        count = self.global_tokens
        far = j - i
        near = (far >= -self.window) & (far <= self.window)
        above, beside = i < count, j < count
        if not self.segment:
            return near | above | beside
        stands = (j - count) // self.segment == i, (i - count) // self.segment == j
        return (
            (near & ~above & ~beside)
            | (above & beside)
            | (above & ~beside & stands[0])
            | (~above & beside & stands[1])
        )

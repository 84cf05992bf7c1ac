"""Keys of the query's row and column, where places are those of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..parts.kind import Pattern
from ..parts.limits import least


@dataclass(frozen=True)
class Axial(Pattern):
    """Axial attention (Ho et al., 2019, arXiv:1912.12180, section 3.1), along both axes of a grid in one
    attention, where the paper's layers take turns.

    width: places in a row. global_tokens: the first places, before the grid begins (an image's class token),
    are seen by all and see all.
    """

    width: int = 32
    global_tokens: int = 0

    def __post_init__(self) -> None:
        least(self, width=1, global_tokens=0)

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        row, column = i - self.global_tokens, j - self.global_tokens
        found = (row // self.width == column // self.width) | (row % self.width == column % self.width)
        if self.global_tokens:
            found = found | (j < self.global_tokens) | (i < self.global_tokens)
        return found

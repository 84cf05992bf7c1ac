"""Keys of the query's own block, and of those beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..parts.kind import Pattern
from ..parts.limits import least, too_long
from ..parts.site import Site


@dataclass(frozen=True)
class Block(Pattern):
    """Blockwise attention: a text is cut into blocks, each of which sees itself (local attention of Parmar et
    al., 2018, arXiv:1802.05751, section 3.3; blocks as of Qiu et al., 2020, arXiv:1911.02972, without heads
    that see another one).

    block: places in one. neighbours: blocks seen on either side (for a model that looks back only: before).
    global_tokens: the first places of a text are seen by all and see all.
    """

    block: int = 128
    neighbours: int = 0
    global_tokens: int = 0

    def __post_init__(self) -> None:
        least(self, block=1, neighbours=0, global_tokens=0)

    def unfit(self, site: Site) -> str:
        return too_long(self.block, site)

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        far = j // self.block - i // self.block
        near = (far >= -self.neighbours) & (far <= self.neighbours)
        if self.global_tokens:
            near = near | (j < self.global_tokens) | (i < self.global_tokens)
        return near

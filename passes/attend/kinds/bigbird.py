"""Keys near the query, first ones, and blocks that are drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.drawn import drawn, seen
from ..parts.kind import Pattern, Seen
from ..parts.limits import least, too_long
from ..parts.site import Site


@dataclass(frozen=True)
class Bigbird(Pattern):
    """BigBird's pattern (Zaheer et al., 2020, arXiv:2007.14062, section 2 and appendix D), with global tokens
    at the beginning alone: the last block, global in its ITC form too, is another in each text.

    block: places in one. neighbours: blocks seen on either side (for a model that looks back only: before).
    global_tokens: the first places are seen by all and see all. blocks: drawn for each block of queries, as
    those of "random".
    """

    block: int = 64
    neighbours: int = 1
    global_tokens: int = 128
    blocks: int = 3

    def __post_init__(self) -> None:
        least(self, block=1, neighbours=0, global_tokens=0, blocks=0)

    def unfit(self, site: Site) -> str:
        return too_long(self.block, site)

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"choices": drawn(site, self.block, self.blocks, generator)}

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        far = j // self.block - i // self.block
        near = (far >= -self.neighbours) & (far <= self.neighbours)
        found = near | seen(own["choices"], self.block, i, j)
        return found | (j < self.global_tokens) | (i < self.global_tokens)

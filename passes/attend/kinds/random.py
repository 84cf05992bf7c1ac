"""Keys of the query's own block, and of blocks that are drawn at random."""

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
class Random(Pattern):
    """The random part of BigBird (Zaheer et al., 2020, arXiv:2007.14062, section 2), in blocks.

    block: places in one. blocks: drawn for each block of queries, of those before it where a model looks back
    only, once and for all by the pass's seed, other ones in each layer.
    """

    block: int = 64
    blocks: int = 3

    def __post_init__(self) -> None:
        least(self, block=1, blocks=0)

    def unfit(self, site: Site) -> str:
        return too_long(self.block, site)

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"choices": drawn(site, self.block, self.blocks, generator)}

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        return seen(own["choices"], self.block, i, j)

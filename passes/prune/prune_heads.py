"""prune-heads: fewer attention heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .parts.by_units import PruneUnits


@dataclass(frozen=True)
class PruneHeads(PruneUnits):
    """Remove attention heads, least important first (Michel et al., 2019, arXiv:1905.10650).

            q = linear(x, wq[768,768]); h = reshape(q, [b, l, 12, 64]); y = linear(c, wo[768,768])
        ->  q = linear(x, wq[512,768]); h = reshape(q, [b, l, 8, 64]); y = linear(c, wo[768,512])

    Layers may keep unequal numbers of heads, and none. Where queries share keys and values, a unit is a
    key/value head with its queries. Layers with the same weights lose the same heads.

    ratio: how many of all heads go, in [0, 1).
    importance: what tells which: magnitude of weights, first-order taylor, fisher (diagonal) or fisher-block,
        activation, movement or movement-soft scores, or random.
    scope: "model" compares the heads of all layers; "layer" takes the same share of each.
    steps, rate: of movement's training, which leaves the weights trained; the others don't train.
    """

    name: ClassVar[str] = "prune-heads"
    kind: ClassVar = "heads"
    block: ClassVar = "attention"
    word: ClassVar[str] = "heads"

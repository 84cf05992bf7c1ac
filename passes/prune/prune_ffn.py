"""prune-ffn: narrower feed-forwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .parts.by_units import PruneUnits

if TYPE_CHECKING:
    from .surgery.units import Units


@dataclass(frozen=True)
class PruneFfn(PruneUnits):
    """Remove neurons of feed-forwards, least important first (McCarley et al., 2019, arXiv:1910.06360).

            a = gelu(linear(x, up[3072,768])); y = linear(a, down[768,3072])
        ->  a = gelu(linear(x, up[1536,768])); y = linear(a, down[768,1536])

    Gated ones lose a neuron of both branches. A layer may lose all of them.

    ratio: how many of all neurons go, in [0, 1).
    importance: what tells which: magnitude of weights, first-order taylor, fisher (diagonal) or fisher-block,
        activation, movement or movement-soft scores, or random.
    scope: "model" compares the neurons of all layers; "layer" takes the same share of each.
    steps, rate: of movement's training, which leaves the weights trained; the others don't train.
    multiple: the width that is left is a multiple of this, for the sake of vector units; fewer go then.
    """

    name: ClassVar[str] = "prune-ffn"
    kind: ClassVar = "width"
    block: ClassVar = "feed_forward"
    word: ClassVar[str] = "neurons"

    multiple: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multiple < 1:
            raise ValueError(f"multiple is {self.multiple}, and a width is a multiple of 1 or more")

    def step(self, units: Units) -> int:
        return self.multiple

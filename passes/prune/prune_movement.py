"""prune-movement: zeros where training moves weights towards zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Feed, Result
from .sparse.patterns import Sparsity
from .sparse.training import Sparsifying

if TYPE_CHECKING:
    import torch

WARMUP, COOLDOWN = 0.1, 0.3  # shares of the run: dense at first, and at its final sparsity at the end


@dataclass(frozen=True)
class PruneMovement(Sparsifying):
    """Train with the weights left out that move towards zero (Sanh et al., 2020, arXiv:2005.07683).

            w = parameter, as captured
        ->  w = parameter, trained, those that moved towards 0 are 0

    Each weight has a score that learns with it: it falls where the gradient shrinks the weight. The lowest
    are left out, more and more of them (Zhu and Gupta, 2017, arXiv:1710.01878); gradients go straight
    through. It learns from the captured model's outputs, so no labels are needed.

    pattern, sparsity, scope: as prune-weights has them.
    """

    name: ClassVar[str] = "prune-movement"

    def run(self, program: Program, context: Context) -> Result:
        from .sparse.choice import kept
        from .sparse.matrices import WeightMasks, chosen, oriented

        before = program.clone()
        pattern = Sparsity.read(self.pattern)
        batches = self.data(program, context)
        own = self.own(program)
        matrices, said = chosen(program, pattern, context)
        masks = WeightMasks(program, matrices, scored=True)
        objective, more = self.objective(program, context, batches)
        last = -1.0

        def prune(sparsity: float) -> None:
            if sparsity:
                scores = {m.name: oriented(m, masks.scores[m.name].detach()) for m in matrices}
                masks.set(kept(pattern, scores, sparsity, self.scope))

        def loss(feed: Feed, share: float) -> torch.Tensor:
            nonlocal last
            if share != last:
                prune(scheduled(self.sparsity, share))
                last = share
            return objective(feed, share)

        scores = {f"{name}_score": score for name, score in masks.scores.items()}
        result = self.learned(program, context, {**own, **scores}, loss, batches, more)
        prune(self.sparsity)
        return self.finished(result, masks, before, context, said)


def scheduled(sparsity: float, share: float) -> float:
    """The share of zeros at a share of the run: cubic between the dense start and the end."""
    done = min(1.0, max(0.0, (share - WARMUP) / (1 - WARMUP - COOLDOWN)))
    return sparsity * (1 - (1 - done) ** 3)

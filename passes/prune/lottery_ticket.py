"""lottery-ticket: zeros found by training and pruning in turn, each time from the same weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Result
from .sparse.patterns import Sparsity
from .sparse.training import Sparsifying


@dataclass(frozen=True)
class LotteryTicket(Sparsifying):
    """Iterative magnitude pruning with rewinding (Frankle and Carbin, 2018, arXiv:1803.03635).

            w = parameter, as captured
        ->  w = parameter, trained, most of its numbers 0

    A round trains, sets the smallest of the weights that are left to zero, and takes the rest back to what
    they were; each takes the same share of what is left, and the last ticket is trained once more. They go
    back not to the start but to where a short training brought them, which is what makes tickets of
    Transformers win (stabilised: Brix et al., 2020, arXiv:2005.03454). All training is against the captured
    model's outputs, without labels.

    rounds: of training and pruning. rewind: steps of the short training before; 0 goes back to the start.
    steps, minutes: of the training in each round.
    pattern, sparsity, scope: as prune-weights has them.
    """

    name: ClassVar[str] = "lottery-ticket"

    steps: int = 1000
    rounds: int = 3
    rewind: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, and at least one is needed")
        if self.rewind < 0:
            raise ValueError(f"rewind is {self.rewind}, and cannot be below 0")
        if Sparsity.read(self.pattern).few and self.rounds > 1:
            raise ValueError(f"pattern {self.pattern} has its sparsity at once: give it rounds=1")

    def run(self, program: Program, context: Context) -> Result:
        import torch

        from .sparse.choice import kept
        from .sparse.matrices import WeightMasks, chosen, weight

        before = program.clone()
        pattern = Sparsity.read(self.pattern)
        batches = self.data(program, context)
        own = self.own(program)
        matrices, said = chosen(program, pattern, context)
        masks = WeightMasks(program, matrices)
        objective, more = self.objective(program, context, batches)
        if self.rewind:
            replace(self, steps=self.rewind).learned(program, context, own, objective, batches)
        early = {name: parameter.detach().clone() for name, parameter in own.items()}
        for number in range(1, self.rounds + 1):
            self.learned(program, context, own, objective, batches)
            left = masks.kept()
            scores = {m.name: weight(program, m).abs() * left[m.name] for m in matrices}
            sparsity = 1 - (1 - self.sparsity) ** (number / self.rounds)
            masks.set(kept(pattern, scores, sparsity, self.scope))
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(early[name])
        result = self.learned(program, context, own, objective, batches, more)
        return self.finished(result, masks, before, context, said)

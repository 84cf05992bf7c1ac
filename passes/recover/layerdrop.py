"""layerdrop: train a program so that it can do without any of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Result
from .teaching.comparable import alike
from .teaching.depth import one_stream
from .training.recovery import Recovery


@dataclass(frozen=True)
class Layerdrop(Recovery):
    """Train with layers left out at random (LayerDrop: Fan et al., 2019, arXiv:1909.11556, section 3.2).

            weights as captured
        ->  weights trained so that any layer may be left out

    Each layer is left out of a step with one probability, the stream going past it; one trained program is
    then pruned to any depth. The loss is the distance of the outputs to the captured model's, as distill has
    it by the task, so no labels are needed. The result has all its layers.

    drop: the probability.
    """

    name: ClassVar[str] = "layerdrop"

    drop: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.drop < 1:
            raise ValueError(f"drop is {self.drop:g}, and a probability of leaving out is between 0 and 1")

    def run(self, program: Program, context: Context) -> Result:
        import torch

        from ...ir.evaluated import evaluated
        from .teaching.chain import chain, through
        from .teaching.losses.by_task import at_outputs
        from .teaching.objective import Objective

        assert context.original is not None
        teacher = evaluated(context.original)
        alike(teacher, program)
        batches = self.data(program, context)
        layers = one_stream(program, self.name).layers
        own = self.own(program)
        cut = chain(
            program.graph, [layers[0].entry.native.name, *(layer.exit.native.name for layer in layers)]
        )
        links = [self.recomputed(link) for link in cut.links]

        def choose(number: int, share: float) -> torch.nn.Module | None:
            # In what is held out too: with all its layers, the program is best before it learns.
            return None if float(torch.rand(())) < self.drop else links[number]

        terms, notes = at_outputs(teacher, program, batches[0][0])
        objective = Objective(teacher, terms, through(program, terms, cut, choose))
        return self.learned(program, context, own, objective, batches, notes)

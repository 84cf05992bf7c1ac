"""What passes that train towards zeros have in common: their options, and the loss through the masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....ir.program import Program
from ...manager.contract import Context, Feed, Result
from ...recover.teaching.comparable import alike
from ...recover.training.recovery import Recovery
from .patterns import Scope, Sparsity

if TYPE_CHECKING:
    from ...recover.teaching.objective import Objective
    from .matrices import WeightMasks


@dataclass(frozen=True)
class Sparsifying(Recovery):
    """A Recovery whose products read masked weights. The weights that held-out data like best would be those
    before pruning, so it trains to the end."""

    patience: int = 0

    pattern: str = "unstructured"
    sparsity: float = 0.5
    scope: Scope = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        Sparsity.read(self.pattern, self.sparsity)
        if self.patience:
            raise ValueError("patience would take the weights from before they were pruned: leave it at 0")

    def objective(
        self, program: Program, context: Context, batches: tuple[list[Feed], list[Feed]]
    ) -> tuple[Objective, list[str]]:
        """The distance of the outputs to the captured model's, and notes. The graph is taken as it stands."""
        from ....ir.evaluated import evaluated
        from ...recover.teaching.losses.by_task import at_outputs
        from ...recover.teaching.objective import Objective, Watched

        assert context.original is not None
        teacher = evaluated(context.original)
        alike(teacher, program)
        terms, notes = at_outputs(teacher, program, batches[0][0])
        student = Watched(program, program.graph, [node for term in terms for node in term.learns])
        return Objective(teacher, terms, student), notes

    def finished(
        self, result: Result, masks: WeightMasks, before: Program, context: Context, said: list[str]
    ) -> Result:
        """The result with zeros in its weights instead of masks in its graph, and what they buy."""
        from .report import notes, statistics

        masks.fold()
        found = statistics(result.program, masks.matrices, Sparsity.read(self.pattern))
        more = (*result.notes, *said, *notes(before, result.program, context))
        return Result(result.program, True, {**result.statistics, **found}, more)

"""set-mode: training or evaluation mode of a traced graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result


@dataclass(frozen=True)
class SetMode(Pass):
    """Switch dropout and batch norms to training or to evaluation, in place of `.train()` and `.eval()`.

            y = dropout(x, 0.1, train=False)
        ->  y = dropout(x, 0.1, train=True)

    A graph is captured in evaluation mode and keeps its dropouts, with their rates, switched off. The result
    trains in an ordinary PyTorch loop over `program.graph.parameters()`. Weights are shared with the program
    before, so training one trains both: train `copy.deepcopy(program.graph)` to keep the other.

    training: the mode.
    """

    name: ClassVar[str] = "set-mode"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    training: bool = True

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.mode import modal, rate, set_mode

        changed = set_mode(program.graph, self.training)
        nodes = [node for node, _ in modal(program.graph)]
        notes = []
        if not nodes:
            notes.append("nothing in the graph depends on the mode")
        zero = sum(rate(node) == 0 for node in nodes)
        if zero and self.training:
            notes.append(f"{zero} of {len(nodes)} nodes with a mode drop nothing: their rate is 0")
        statistics = {"nodes switched": changed, "nodes with a mode": len(nodes)}
        return Result(program, changed > 0, statistics, tuple(notes))

"""theseus: layers of the captured model give way to the program's, some at each step, in the end all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PipelineError
from ...ir.program import Program
from ..manager.contract import Context, Result
from .teaching.comparable import alike
from .teaching.depth import check, one_stream, read, shown, uniform
from .training.recovery import Recovery

if TYPE_CHECKING:
    from ...ir.blocks.stream import Stream


@dataclass(frozen=True)
class Theseus(Recovery):
    """Module replacing (BERT-of-Theseus: Xu et al., 2020, arXiv:2002.02925, sections 3.1 to 3.3).

            weights of fewer layers
        ->  weights trained in the place of the captured model's layers

    At each step every layer of the program stands in, with a probability, for the layers of the captured
    model that it replaces, which are frozen. The probability grows by a line, and the rest of the run trains
    the program alone. The loss is the distance of the outputs to the captured model's, as distill has it by
    the task, so no labels are needed.

    first: the probability at the beginning. until: the share of the steps after which it is 1.
    layers: the last layer of the captured model that each of the program replaces, such as "1:2,2:4,3:6".
    """

    name: ClassVar[str] = "theseus"

    first: float = 0.3
    until: float = 0.6
    layers: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "until"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}, and it must be from 0 to 1")
        if self.layers:
            read(self.layers)

    def probability(self, share: float) -> float:
        """That of a layer to stand in, when this share of the steps is done."""
        return 1.0 if share >= self.until else self.first + (1 - self.first) * share / self.until

    def run(self, program: Program, context: Context) -> Result:
        import torch

        from ...ir.evaluated import evaluated
        from .teaching.chain import chain, frozen, through
        from .teaching.losses.by_task import at_outputs
        from .teaching.objective import Objective

        assert context.original is not None
        teacher = evaluated(context.original)
        alike(teacher, program)
        batches = self.data(program, context)
        pairs, olds, news = self._cuts(one_stream(teacher, self.name), one_stream(program, self.name))
        own = self.own(program)
        mine, theirs = chain(program.graph, news), chain(frozen(teacher.graph), olds)
        links = [self.recomputed(link) for link in mine.links]

        def choose(number: int, share: float) -> torch.nn.Module:
            alone = not torch.is_grad_enabled()  # what is held out judges the program itself
            stands_in = alone or float(torch.rand(())) < self.probability(share)
            return links[number] if stands_in else theirs.links[number]

        terms, notes = at_outputs(teacher, program, batches[0][0])
        notes.append(f"layers that replace those up to layers: {pairs}")
        objective = Objective(teacher, terms, through(program, terms, mine, choose))
        return self.learned(program, context, own, objective, batches, notes)

    def _cuts(self, above: Stream, below: Stream) -> tuple[str, list[str], list[str]]:
        """(pairs as text, where the captured model is cut, where the program is), by the names of nodes."""
        pairs = read(self.layers) if self.layers else uniform([below], [above])
        many, most = len(below.layers), len(above.layers)
        check(pairs, many, most)
        olds = [old for _, old in pairs]
        if len(pairs) < many or olds != sorted(set(olds)) or olds[-1] + 1 < most:
            raise PipelineError(
                f"layers is {shown(pairs)}, and theseus replaces everything in order: name all "
                f"{many} layers of the program, and last the captured model's last, {most}"
            )
        return (
            shown(pairs),
            [above.layers[0].entry.native.name, *(above.layers[old].exit.native.name for old in olds)],
            [below.layers[0].entry.native.name, *(layer.exit.native.name for layer in below.layers)],
        )

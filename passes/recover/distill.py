"""distill: the program learns to give what the captured model gave. No labels are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PipelineError
from ...ir.program import Program
from ..manager.contract import Context, Feed, Result
from .teaching.comparable import alike
from .teaching.depth import attention_of, check, exits, layered, read, shown, uniform
from .training.recovery import Recovery

if TYPE_CHECKING:
    from .teaching.losses.base import Term


@dataclass(frozen=True)
class Distill(Recovery):
    """Train a rewritten program with the captured one as teacher, on unlabelled data.

            weights as a rewrite left them
        ->  weights trained to give the outputs and states of the captured model

    Terms of the loss, with their weights (0 leaves one out; none: by the task):
    output: distance of the outputs (losses/outputs.py); 1 unless they are logits.
    similarity: of the cosines between sentences; 1 for embeddings.
    soft: labels of the teacher at `temperature` (Hinton et al., 2015); 1 for logits.
    hard: labels of the data, where they have any.
    hidden: states after layers, through a learned matrix where the widths differ (losses/hidden.py).
    attention, values: where queries look, and how values relate (losses/attention.py).
    layers: which layer of the student learns from which of the teacher, such as "1:2,2:4,3:6"; by default the
        last from the last, and the others evenly.
    progressive: the first half of the steps teaches the layers one after the other, from the first on.
    anneal: the share of the steps over which norms that `nonorm` replaced give way to its affine maps, mixed
        by a share that grows by a line; 0 begins with the maps alone. What is held out judges the maps alone,
        and they are all that is in the result.
    """

    name: ClassVar[str] = "distill"

    output: float | None = None
    similarity: float | None = None
    soft: float | None = None
    temperature: float = 2.0
    hard: float = 0.0
    hidden: float = 1.0
    attention: float = 0.0
    values: float = 0.0
    layers: str = ""
    progressive: bool = False
    anneal: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature:g}, and it must be above 0")
        for name in ("output", "similarity", "soft", "hard", "hidden", "attention", "values"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name):g}, and a weight cannot be below 0")
        if self.progressive and not (self.hidden or self.attention or self.values):
            raise ValueError("progressive goes layer by layer: give hidden, attention or values a weight")
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"anneal is {self.anneal:g}, and a share of the steps is from 0 to 1")
        if self.layers:
            read(self.layers)

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.evaluated import evaluated
        from .teaching.annealed import Annealed
        from .teaching.objective import Objective, Watched

        assert context.original is not None
        teacher = evaluated(context.original)
        alike(teacher, program)
        batches = self.data(program, context)
        terms, notes = self._terms(teacher, program, batches[0][0], context.seed)
        own = self.own(program)
        ends = exits(program) if self.recompute else []
        learns = [node for term in terms for node in term.learns]
        student = Watched(program, program.graph, learns, ends)
        if self.anneal:
            student = annealed = Annealed(program, teacher, learns, self.anneal, ends)
            notes.append(f"norms that give way to affine maps: {annealed.count}")
        objective = Objective(teacher, terms, student, self.progressive)
        mine = {name: p for term in terms for name, p in term.parameters.items()}
        return self.learned(program, context, {**own, **mine}, objective, batches, notes)

    def _terms(
        self, teacher: Program, student: Program, feed: Feed, seed: int
    ) -> tuple[list[Term], list[str]]:
        from .teaching.losses.by_task import at_outputs

        weights = {name: getattr(self, name) for name in ("output", "similarity", "soft", "hard")}
        found, notes = at_outputs(teacher, student, feed, self.temperature, **weights)
        if self.hidden or self.attention or self.values:
            inner, more = self._at_layers(teacher, student, seed)
            found, notes = found + inner, notes + more
        if not found:
            raise PipelineError("distill has no term to learn by: give one of its weights a value above 0")
        return found, notes

    def _at_layers(self, teacher: Program, student: Program, seed: int) -> tuple[list[Term], list[str]]:
        from .teaching.losses.attention import Maps, Relations, map_nodes, native
        from .teaching.losses.outputs import hidden

        (above, _), (below, notes) = layered(teacher), layered(student)
        teachers = [layer for stream in above for layer in stream.layers]
        students = [layer for stream in below for layer in stream.layers]
        pairs = read(self.layers) if self.layers else uniform(below, above)
        check(pairs, len(students), len(teachers))
        if not pairs:
            return [], [*notes, "no layers were found that correspond, so the outputs alone are taught"]
        notes.append(f"layers that learn from layers: {shown(pairs)}")
        found: list[Term] = []
        for place, (a, b) in enumerate(pairs):
            learns, taught = students[a], teachers[b]
            if self.hidden:
                ends = (taught.exit.native, learns.exit.native)
                found.append(hidden(student, self.hidden / len(pairs), place, *ends, seed))
            if not (self.attention or self.values):
                continue
            one, other = attention_of(taught), attention_of(learns)
            if one is None or other is None:
                notes.append(
                    f"layer {a + 1} has no attention left to compare with layer {b + 1} of the teacher"
                )
                continue
            nodes = map_nodes(one), map_nodes(other)
            if self.attention and nodes[0] is not None and nodes[1] is not None:
                found.append(
                    Maps(
                        self.attention / len(pairs),
                        place,
                        nodes[0],
                        nodes[1],
                        program=student,
                        teacher=one,
                        student=other,
                    )
                )
            ends = native(one.value), native(other.value)
            if self.values and ends[0] is not None and ends[1] is not None:
                found.append(
                    Relations(
                        self.values / len(pairs),
                        place,
                        [ends[0]],
                        [ends[1]],
                        program=student,
                        teacher=one,
                        student=other,
                    )
                )
        return found, notes

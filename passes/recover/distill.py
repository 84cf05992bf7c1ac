"""distill: the program learns to give what the captured model gave. No labels are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...ir.errors import PipelineError
from ...ir.program import Program
from ..manager.contract import Context, Feed, Result
from ..manager.varying import Between
from .teaching.comparable import alike
from .teaching.depth import check, exits, layered, read, shown, uniform
from .training.recovery import Recovery

if TYPE_CHECKING:
    from .teaching.losses.base import Term
    from .teaching.losses.projections import Projections
    from .teaching.losses.readings import Reading
    from .training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Distill(Recovery):
    """Train a rewritten program with the captured one as teacher, on unlabelled data.

            weights as a rewrite left them
        ->  weights trained to give the outputs and states of the captured model

    Where teacher and student read texts by other tokenizers, as after `transfer-vocabulary`, each reads the
    texts that stand beside the ids by its own. What there is for each token is then compared word by word, by
    its mean; attention, and scores of tokens or places, are not compared (losses/readings.py).

    Terms of the loss, with their weights (0 leaves one out; none: by the task):
    output: distance of the outputs (losses/outputs.py); 1 unless they are logits.
    similarity: of the cosines between sentences; 1 for embeddings.
    soft: labels of the teacher at `temperature` (Hinton et al., 2015); 1 for logits.
    hard: labels of the data, where they have any.
    hidden: states after layers, through a learned matrix where the widths differ (losses/outputs.py).
    attention, values: where queries look, and how values relate (losses/attention.py).
    projections: where the teacher is wider, "own" has a matrix a layer, from random numbers; "shared" has one
        pair for all layers, which starts from what the texts say that the widths have in common, and is
        learned along and thrown away (Zhao et al., 2019, arXiv:1909.11687; losses/projections.py). Vectors
        that are given out may then be as narrow as the student's stream: a student of its own make learns
        from a teacher given as Context(original=...).
    matrices: of layers, projected to the teacher's by that pair (losses/matrices.py).
    layers: which layer of the student learns from which of the teacher, such as "1:2,2:4,3:6"; by default the
        last from the last, and the others evenly.
    progressive: the first half of the steps teaches the layers one after the other, from the first on.
    anneal: the share of the steps over which norms that `nonorm` replaced give way to its affine maps, mixed
        by a share that grows by a line; 0 begins with the maps alone. What is held out judges the maps alone,
        and they are all that is in the result.
    shard: of a script that torchrun started, each process holds a part of the weights, gradients and moments,
        and of the teacher (training/shards.py); the run is then kept nowhere, and no teacher's value is.
    """

    name: ClassVar[str] = "distill"
    varies: ClassVar = {"steps": Between(100, 3000, log=True, rising=True)}

    output: float | None = None
    similarity: float | None = None
    soft: float | None = None
    temperature: float = 2.0
    hard: float = 0.0
    hidden: float = 1.0
    attention: float = 0.0
    values: float = 0.0
    projections: Literal["own", "shared"] = "own"
    matrices: float = 0.0
    layers: str = ""
    progressive: bool = False
    anneal: float = 0.0
    shard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature:g}, and it must be above 0")
        for name in ("output", "similarity", "soft", "hard", "hidden", "attention", "values", "matrices"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name):g}, and a weight cannot be below 0")
        if self.progressive and not (self.hidden or self.attention or self.values):
            raise ValueError("progressive goes layer by layer: give hidden, attention or values a weight")
        if self.matrices and self.projections == "own":
            raise ValueError("matrices are compared through shared projections: give projections=shared")
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"anneal is {self.anneal:g}, and a share of the steps is from 0 to 1")
        if self.shard and self.anneal:
            raise ValueError("shard parts a student of one graph, and anneal has two: leave one of them out")
        if self.shard and self.checkpoint:
            raise ValueError("a run in parts keeps no checkpoint: leave shard or checkpoint out")
        if self.layers:
            read(self.layers)

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.evaluated import evaluated
        from .teaching.annealed import Annealed
        from .teaching.losses.readings import reading
        from .teaching.objective import Objective, Watched
        from .training.recompute import pieces, recomputing
        from .training.shards import in_parts
        from .training.workers import join

        assert context.original is not None
        teacher = evaluated(context.original)
        alike(teacher, program, widths=self.projections == "own", ids=False)
        reads = reading(teacher, program)
        batches = self.data(program, context)
        terms, notes = self._terms(teacher, program, batches[0], context.seed, reads)
        own = self.own(program)
        team = join()
        parted = self.shard and team.count > 1
        ends = exits(program) if self.recompute or parted else []
        if parted and not (ends and exits(teacher)):
            raise PipelineError("no layers were found to part the models by: leave shard out")
        learns = [node for term in terms for node in term.learns]
        student = Watched(program, program.graph, learns, ends, recomputing if self.recompute else pieces)
        if self.anneal:
            student = annealed = Annealed(program, teacher, learns, self.anneal, ends)
            notes.append(f"norms that give way to affine maps: {annealed.count}")
        cuts = exits(teacher) if parted else ()
        objective = Objective(teacher, terms, student, self.progressive, cuts, reads)
        mine = {name: p for term in terms for name, p in term.parameters.items()}
        if parted:
            with in_parts(student.module, objective.teacher.module, own, team) as learning:
                return self.learned(program, context, {**learning, **mine}, objective, batches, notes)
        return self.learned(program, context, {**own, **mine}, objective, batches, notes)

    def _kept(self, *what: Any) -> Checkpoints | None:
        return None if self.shard else super()._kept(*what)

    def _terms(
        self, teacher: Program, student: Program, feeds: Sequence[Feed], seed: int, reads: Reading
    ) -> tuple[list[Term], list[str]]:
        from .teaching.losses.by_task import at_outputs

        inner: list[Term] = []
        notes: list[str] = []
        shared: Projections = {}
        if self.hidden or self.attention or self.values or self.projections == "shared":
            inner, notes, shared = self._at_layers(teacher, student, seed, feeds, reads)
        weights = {name: getattr(self, name) for name in ("output", "similarity", "soft", "hard")}
        found, missing = at_outputs(
            teacher, student, feeds[0], self.temperature, **weights, shared=shared, reading=reads
        )
        if not found and not inner:
            raise PipelineError("distill has no term to learn by: give one of its weights a value above 0")
        return [*found, *inner], [*missing, *notes]

    def _at_layers(
        self, teacher: Program, student: Program, seed: int, feeds: Sequence[Feed], reads: Reading
    ) -> tuple[list[Term], list[str], Projections]:
        from .teaching.at_layers import Weights, at_layers
        from .teaching.losses.projections import projections

        (above, _), (below, notes) = layered(teacher), layered(student)
        teachers = [layer for stream in above for layer in stream.layers]
        students = [layer for stream in below for layer in stream.layers]
        pairs = read(self.layers) if self.layers else uniform(below, above)
        check(pairs, len(students), len(teachers))
        layers = [(teachers[b], students[a]) for a, b in pairs]
        shared: Projections = {}
        if self.projections == "shared":
            shared = projections(teacher, student, layers, feeds, reads)
        if not pairs:
            notes = [*notes, "no layers were found that correspond, so the outputs alone are taught"]
            return [], notes, {}
        notes.append(f"layers that learn from layers: {shown(pairs)}")
        weights = Weights(self.hidden, self.attention, self.values, self.matrices)
        found, more = at_layers((teacher, student), layers, weights, shared, seed, reads)
        return found, [*notes, *more], shared

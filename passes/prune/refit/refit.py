"""Reconstruction without training: output projections refitted, layer after layer, on unlabelled text.

Each is moved, by least squares, to where the residual stream after it is nearest to what it was in the
original program, given what the pruned layers before it really give. That is the objective of the mask tuning
of Kwon et al. (2022, arXiv:2204.09656), section 4.3, which finds a factor a unit; ZipLM's update (Kurtic et
al., 2023, arXiv:2302.04089) moves every weight. Solved in float64, with a pull towards the weights as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...common.outputs import rows
from ...common.projections import OutputProjection, projections
from ...common.surgeon import Moments, Surgeon
from ...manager.contract import Feed

Tune = Literal["weights", "masks"]


def refit(
    student: Program,
    teacher: Program,
    feeds: Sequence[Feed],
    tune: Tune = "weights",
    damping: float = 0.01,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Refits the output projections of a pruned program, in place, in graph order.

    Args:
        student: fx, with new parameters afterwards. Blocks find each other by their parameters' names.
        teacher: fx, what it was pruned from.
        tune: every weight and bias of an output projection, or one factor for each input of it.
        damping: of the least squares, times the mean of the diagonal of X^T X.

    Returns:
        By weight, the error of the stream before and after (|difference|^2 / |what the block adds|^2); and a
        sentence for each block that was left as it is.

    Raises:
        DataError: no rows, or rows that are not finite.
    """
    live, fixed = evaluated(student), evaluated(teacher)
    mine, notes = projections(live)
    theirs = {one.weight: one for one in projections(fixed)[0]}
    notes += [f"{one.root.name} keeps its weights: {one.weight} is none of the original's"
              for one in mine if one.weight not in theirs]  # fmt: skip
    pairs = [(one, theirs[one.weight]) for one in mine if one.weight in theirs]
    runs = _Runs(live, fixed, feeds, pairs)
    errors = {}
    for number, (one, other) in enumerate(pairs):
        progress("refitting", number, len(pairs))
        before = one.matrix(live.graph)
        moments = runs.moments(one, other)
        surgeon = Surgeon(moments, before, damping=damping)
        after = surgeon.fitted() if tune == "weights" else surgeon.scaled(before)
        errors[one.weight] = (moments.error(before), moments.error(after))
        for graph in {live.graph, student.graph}:
            one.write(graph, after)
    return errors, notes


class _Runs:
    """The two programs, run over the same feeds up to the same block."""

    def __init__(
        self,
        student: Program,
        teacher: Program,
        feeds: Sequence[Feed],
        pairs: Sequence[tuple[OutputProjection, OutputProjection]],
    ) -> None:
        self._program, self._feeds = student, feeds
        self._student = Lockstep(
            student, feeds, [n for one, _ in pairs for n in (one.operand, one.stream) if n]
        )
        self._teacher = Lockstep(teacher, feeds, [other.sum or other.root for _, other in pairs])

    def moments(self, one: OutputProjection, other: OutputProjection) -> Moments:
        """Of what a student's projection reads, towards what would put its stream where the teacher's is."""
        joined = one.stream is not None and other.sum is not None
        end = other.sum if joined and other.sum is not None else other.root
        self._teacher.reached(end)
        self._student.reached(one.operand)
        moments = Moments.none()
        for number, feed in enumerate(self._feeds):
            x = rows(self._program, feed, self._student.value(one.operand, number))
            target = rows(self._program, feed, self._teacher.value(end, number))
            if joined and one.stream is not None:
                target = target - rows(self._program, feed, self._student.value(one.stream, number))
            moments = moments.plus(x, target, constant=one.bias is not None)
        self._student.let_go(one.operand, *([one.stream] if one.stream else []))
        self._teacher.let_go(end)
        return moments

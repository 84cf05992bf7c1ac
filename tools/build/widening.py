"""Passes that let a model take calls that it refused: what they give is what the rest stands beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from ...ir.program import Program
from ...passes.manager.contract import Context, Pass
from ...passes.manager.pipeline import Pipeline
from .steps import StepEvidence


@dataclass(frozen=True)
class Widened:
    """passes: those that ran, with a row each in steps. program: what they gave. rest: the pipeline after
    them, None where a preset follows."""

    program: Program
    rest: Pipeline | None
    passes: Sequence[Pass] = ()
    steps: Sequence[StepEvidence] = ()

    def whole(self, pipeline: Pipeline) -> str:
        """A pipeline that ran after them, as it would be given."""
        return str(Pipeline((*self.passes, *pipeline.passes)))

    @property
    def said(self) -> str:
        """What the rest is compared with, in a sentence."""
        first = str(Pipeline(self.passes))
        return f"{first}: what comes after is measured and judged beside the model with it"


def widened(
    program: Program, pipeline: Pipeline | None, progress: Callable[[str, int, int], None]
) -> Widened:
    """Runs the passes that a pipeline begins with and that let the program take more.

    No time or quality of the model as it came says anything of calls that it doesn't take.

    Raises:
        GraphwrightError: one of them can't work on the program.
    """
    first = list(takewhile(lambda pass_: pass_.widens, pipeline.passes)) if pipeline else []
    if pipeline is None or not first:
        return Widened(program, pipeline)
    ran = Pipeline(first).run(program, Context(progress=progress))
    for step in ran.steps:
        if step.error is not None:
            raise step.error
    rest = Pipeline(pipeline.passes[len(first) :])
    return Widened(ran.program, rest, first, tuple(map(StepEvidence, ran.steps)))

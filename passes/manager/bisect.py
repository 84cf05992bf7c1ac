"""Find the pass, and inside it the rewrite, that breaks a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...ir.program import Program
from .contract import Context, Pass, Step
from .instruments import Instrument
from .pipeline import Pipeline
from .text import print_pass

Judge = Callable[[Program], str | None]


@dataclass(frozen=True)
class Culprit:
    """What broke the model.

    text: the pass, as pipeline text. rewrite: its name for the rewrite, None when the pass is broken outside
    of its rewrites. number, total: which of how many rewrites it is, counted from 1. reason: how it shows.
    """

    text: str
    rewrite: str | None
    number: int
    total: int
    reason: str

    def __str__(self) -> str:
        if self.rewrite is None:
            return f"{self.text}: not one of its {self.total} rewrites, but the pass itself: {self.reason}"
        return f"{self.text}: rewrite {self.number} of {self.total} ({self.rewrite}): {self.reason}"


def bisect(
    pipeline: Pipeline, program: Program, context: Context | None = None, judge: Judge | None = None
) -> Culprit | None:
    """The first rewrite after which the model is broken; None if the pipeline leaves it whole.

    Args:
        judge: says why a program is broken, None if it is not. Without it each pass is held to its own
            contract; with it nothing else is, so that an error adding up over several passes is found too.

    Raises:
        PipelineError: the pipeline cannot work on this program. ProgramError: it does not run as it is.
    """
    context = context or Context()
    pipeline.check(program, context)
    for pass_ in pipeline.passes:
        after, reason = _attempt(pass_, program, context, judge)
        if reason is not None:
            return find_rewrite(pass_, program, context, judge)
        program = after
    return None


def find_rewrite(
    pass_: Pass, program: Program, context: Context, judge: Judge | None = None
) -> Culprit | None:
    """The rewrite of `pass_` that breaks `program`, by halving; None if the pass breaks nothing.

    Takes log2(rewrites) + 2 runs of the pass. A pass lets itself be halved by asking `Context.allow` before
    each rewrite.
    """

    def broken_after(limit: int | None) -> tuple[str | None, list[str]]:
        allowance = _Allowance(limit)
        return _attempt(pass_, program, replace(context, allow=allowance), judge)[1], allowance.asked

    reason, rewrites = broken_after(None)
    if reason is None:
        return None
    none_reason, _ = broken_after(0)
    if none_reason is not None:
        return Culprit(print_pass(pass_), None, 0, len(rewrites), none_reason)
    whole, broken = 0, len(rewrites)
    while broken - whole > 1:
        middle = (whole + broken) // 2
        found, _ = broken_after(middle)
        if found is None:
            whole = middle
        else:
            broken, reason = middle, found
    return Culprit(print_pass(pass_), rewrites[broken - 1], broken, len(rewrites), reason)


class Bisect(Instrument):
    """Adds to the notes of a step that was rolled back which rewrite is to blame."""

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        if step.status == "rolled back":
            culprit = find_rewrite(pass_, before, context)
            found = str(culprit) if culprit else "the pass fails no second time: it is not deterministic"
            step.notes = (*step.notes, f"bisected: {found}")


class _Allowance:
    """Answers yes to the first `limit` rewrites, or to all, and remembers what was asked."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.asked: list[str] = []

    def __call__(self, rewrite: str) -> bool:
        self.asked.append(rewrite)
        return self.limit is None or len(self.asked) <= self.limit


def _attempt(
    pass_: Pass, program: Program, context: Context, judge: Judge | None
) -> tuple[Program, str | None]:
    """The program after the pass, and why it is broken."""
    run = Pipeline([pass_]).run(program, replace(context, measure=None), verify=judge is None)
    error = run.steps[0].error
    if error is not None:
        return run.program, str(error)
    return run.program, judge(run.program) if judge is not None else None

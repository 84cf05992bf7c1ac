"""The pass manager: runs a list of passes, checks each one's word, and undoes those that broke it."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ...ir.errors import ContractError, GraphwrightError, PipelineError, ProgramError
from ...ir.footprint import weights
from ...ir.program import Dialect, Program
from .bodies import run_with_bodies
from .contract import Context, Pass, Ratio, Result, Run, Step
from .instruments import Instrument
from .readonly import read_only
from .text import checked, given, parse, print_pass
from .verify import Verifier, same_interface
from .wellformed import well_formed

# Ratios are quartiles of interleaved rounds; 2% is what repeated runs of one and the same graph differ by on
# a machine that others use too, so less than that is neither a gain nor a loss.
GAIN = 1.02  # a workload gains when even its lower quartile is above this
LOSS = 0.98  # and loses when even its upper quartile is below this

SWEEP = 1 << 26  # bytes of weights worth a search for dead graphs, which takes time in proportion to the live

_NEEDS = {
    "calibration": "calibration data: give it real inputs (Context(calibration=feeds), --data FILE)",
    "score": "a quality score: give it labelled data (Context(score=function), --data FILE --task TASK)",
    "target": "to know the hardware: give it a target (Context(target=...))",
    "original": "the model as PyTorch has it: start from a PyTorch or Hugging Face model, not from ONNX",
    "measure": "to time programs: give it a measuring function (Context(measure=...))",
}


@dataclass(frozen=True)
class Pipeline:
    """A list of passes, in the order they run. `str` gives its text, `parse` reads it back."""

    passes: tuple[Pass, ...]

    def __init__(self, passes: Iterable[Pass] = ()) -> None:
        """Check every option of every pass.

        Raises:
            PipelineError: an option has a value of the wrong type.
        """
        values = ((pass_, given(pass_)) for pass_ in passes)
        object.__setattr__(self, "passes", tuple(checked(type(pass_), options) for pass_, options in values))

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """The pipeline that `text` names, such as "fold-constants,specialise-shapes{batch=1}".

        Raises:
            PipelineError: bad syntax, an unknown pass or option, or a value of the wrong type.
        """
        return cls(parse(text))

    def __str__(self) -> str:
        return ",".join(map(print_pass, self.passes))

    def check(self, program: Program, context: Context) -> None:
        """Refuse a pipeline that cannot work on this program, before any work starts.

        Raises:
            PipelineError: names the pass and the mend.
        """
        self.leads_to(program.dialect)
        for pass_ in self.passes:
            for need in pass_.requires():
                if not getattr(context, need, None):
                    raise PipelineError(f"the pass '{pass_.name}' needs {_NEEDS.get(need, need)}")

    def leads_to(self, dialect: Dialect) -> Dialect:
        """The dialect of what comes out where a program of this one goes in.

        Raises:
            PipelineError: the order can't be; names the pass and the mend.
        """
        for pass_ in self.passes:
            if pass_.source is not None and pass_.source != dialect:
                mend = f"insert to-onnx before '{pass_.name}'"
                if dialect == "onnx":
                    mend = "put it before to-onnx, and start from a PyTorch or Hugging Face model"
                raise PipelineError(
                    f"the pass '{pass_.name}' works on {pass_.source} programs and would be given an "
                    f"{dialect} one: {mend}"
                )
            dialect = pass_.target or dialect
        return dialect

    def run(
        self,
        program: Program,
        context: Context | None = None,
        *,
        verify: bool = True,
        instruments: Sequence[Instrument] = (),
        keep_going: bool = False,
        verifier: Verifier | None = None,
    ) -> Run:
        """Run every pass on a clone of what the one before it left; `program` itself is never touched.

        Args:
            verify: check well-formedness, honesty of `modified`, and outputs on probe inputs after each pass.
            instruments: told of every step.
            keep_going: go on with the next pass after one was rolled back or refused.
            verifier: replaces the default verification.

        Returns:
            The last program that kept every contract, and a step for each pass that ran. `ok` is False when
            one was rolled back or refused.

        Raises:
            PipelineError: the pipeline cannot work on this program.
            ProgramError: the program itself does not run on probe inputs.
        """
        context = context or Context()
        if program.dialect == "fx" and context.original is None:
            context = replace(context, original=program)
        self.check(program, context)
        verifier = (verifier or Verifier(context.seed, context.threads)) if verify else None
        run = Run(program)
        for instrument in instruments:
            instrument.begin(str(self), program, context)
        with _few_sweeps():
            for number, pass_ in enumerate(self.passes):
                context.progress(pass_.name, number, len(self.passes))
                before = run.program
                held = weights(before)
                step = Step(print_pass(pass_), pass_.effect, bytes_before=sum(held.values()))
                after, following = _attempt(pass_, before, context, verifier, step)
                kept = weights(after)
                step.bytes_after = sum(kept.values())
                run.program = after
                run.steps.append(step)
                for instrument in instruments:
                    instrument.after(pass_, step, before, after, context)
                if step.error is not None and not keep_going:
                    break
                context = following
                del before, after
                let_go = sum(size for weight, size in held.items() if weight not in kept)
                if step.error is not None or let_go > SWEEP:
                    gc.collect()  # graphs are cycles, so the weights of the one let go would stay
        context.progress("done", len(self.passes), len(self.passes))
        return run


def _attempt(
    pass_: Pass, before: Program, context: Context, verifier: Verifier | None, step: Step
) -> tuple[Program, Context]:
    """Run one pass and judge it: what to go on with, `before` when it was undone. Fills in `step`."""
    if pass_.source not in (None, before.dialect):
        step.status = "not run"
        step.notes = (f"it works on {pass_.source} programs, and the pass that was to make one was undone",)
        return before, context
    try:
        result = _call(pass_, before, context, step)
        if verifier is not None:
            start = time.perf_counter()
            try:
                step.unverified = _check(pass_, before, result, verifier)
            finally:
                step.check_seconds = time.perf_counter() - start
    except ProgramError:
        raise  # whatever the pass did
    except GraphwrightError as error:
        step.status = "rolled back" if isinstance(error, ContractError) else "refused"
        step.error, step.rewrites = error, ()
        _forget_locals(error)
        return before, context
    step.statistics, step.notes, step.missed = result.statistics, result.notes, result.missed
    step.curves = result.curves
    if not result.modified:
        step.rewrites = ()
        return (before if result.program.dialect == before.dialect else result.program), context
    step.status, step.ratios = "applied", result.ratios
    if pass_.gated() and context.gates and context.measure is not None:
        step.ratios = (context.gate or context.measure)(before, result.program)
        if slower(step.ratios.values()):
            step.status, step.rewrites = "slower", ()
            return before, context
    return result.program, result.context or context


def _call(pass_: Pass, before: Program, context: Context, step: Step) -> Result:
    """The pass's result on a clone whose weights cannot be written to. Notes its rewrites in the step."""
    rewrites: list[str] = []

    def noted(rewrite: str) -> bool:
        allowed = context.allow(rewrite)
        if allowed:
            rewrites.append(rewrite)
        return allowed

    start = time.perf_counter()
    try:
        with read_only(before, guard=not pass_.traces()) as clone:
            result = run_with_bodies(pass_, clone, replace(context, allow=noted))
    except GraphwrightError:
        raise
    except Exception as error:
        name = type(error).__name__
        first_line = str(error).strip().partition("\n")[0]
        raise ContractError(f"'{pass_.name}' raised {name}: {first_line}") from error
    finally:
        step.seconds = time.perf_counter() - start
    if not isinstance(result, Result):
        raise ContractError(f"'{pass_.name}' returned {type(result).__name__} instead of a Result")
    step.rewrites = tuple(rewrites)
    if result.context is not None:
        result = replace(result, context=replace(result.context, allow=context.allow))
    due = pass_.target or before.dialect
    if result.program.dialect != due:
        raise ContractError(f"'{pass_.name}' returned a program in {result.program.dialect} instead of {due}")
    return result


def _check(pass_: Pass, before: Program, result: Result, verifier: Verifier) -> str:
    """What could not be verified; raises where a contract is broken."""
    try:
        same_interface(before, result.program)
        well_formed(result.program)
        changed = result.program.fingerprint() != before.fingerprint()
        if changed and not result.modified:
            raise ContractError("it changed the program and says that it did not (modified=False)")
        if result.modified and not changed:
            raise ContractError("it left the program as it was and says that it changed it (modified=True)")
        return verifier.check(before, result.program, pass_.effect) if changed else ""
    except ContractError as error:
        raise ContractError(f"'{pass_.name}' broke its contract: {error}") from error


@contextmanager
def _few_sweeps() -> Iterator[None]:
    """Let Python look for dead cycles rarely: a graph is millions of live objects, and going through them
    again and again costs more than the passes."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1_000_000, 1_000, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _forget_locals(error: BaseException | None) -> None:
    """Keep a traceback's lines but not the program, weights and all, that its frames hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def slower(ratios: Iterable[Ratio]) -> bool:
    """Whether no workload gains and at least one loses."""
    ratios = list(ratios)
    return not any(ratio.low > GAIN for ratio in ratios) and any(ratio.high < LOSS for ratio in ratios)

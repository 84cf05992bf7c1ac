"""What the backends of one run share: the model lowered once, the workloads, the judges, the comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant
from ...backends.cache import cache_directory
from ...backends.measuring.contestants import Contestant
from ...backends.measuring.effort import QUICK, THOROUGH, Effort
from ...backends.measuring.gate import Measurer
from ...backends.measuring.measure import Comparison, Workload, compare, default_names, workloads
from ...backends.measuring.workloads import fitted, fitting
from ...backends.runtimes.onnxruntime import OnnxRuntime
from ...backends.target import named
from ...ir.errors import CaptureError, ContractError, DataError
from ...ir.footprint import weight_bytes
from ...ir.program import Program
from ...passes.manager.contract import Context, Exact, Feed, Ratio
from ...passes.manager.pipeline import Pipeline
from ...passes.manager.wellformed import well_formed
from ..config import RunConfig
from ..console import Console
from ..judge.data import Data
from ..judge.judging import Judging, judging
from ..judge.lengths import lengths
from ..judge.quality import Runner, Score
from . import presets
from .eager import source_of
from .evidence import Evidence
from .portability import Portability, portability
from .replay import Replayed
from .steps import PLAIN, PYTORCH, Quality, StepEvidence
from .widening import Widened

HUGE = 1 << 30  # bytes of weights, from which on exact pipelines are not judged a second time
SHORT = 0.1  # seconds of a call, below which its first is no guide to the others


def candidates(
    config: RunConfig, program: Program, given: Pipeline | None, backend: Engine = "onnxruntime"
) -> list[Pipeline]:
    """The pipeline asked for, then gentler ones to fall back on when it misses the quality goal."""
    if given is not None:
        chain = [given]
        while any(not isinstance(pass_.effect, Exact) for pass_ in chain[-1].passes):
            passes = chain[-1].passes
            last = max(i for i, pass_ in enumerate(passes) if not isinstance(pass_.effect, Exact))
            chain.append(Pipeline(pass_ for i, pass_ in enumerate(passes) if i != last))
        return chain
    assert config.preset is not None
    return presets.chain(config.preset, program, backend)


def spoken(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{math.ceil(seconds / 5) * 5} seconds"


def _seconds(run: Runner, feed: Feed) -> float:
    began = time.perf_counter()
    run(feed)
    return time.perf_counter() - began


class Work:
    """The un-rewritten export, what it is measured and judged on, and how.

    Args:
        first: the pipelines that will be tried first, one a backend.
        wide: what made the program take more than the model as it came.
        recording: ratios that passes are given are kept, and none comes from an earlier run's tables.
        effort: how much is measured; by default what the configuration says.
    """

    def __init__(
        self,
        config: RunConfig,
        console: Console,
        program: Program,
        data: Data | None,
        first: Sequence[Pipeline],
        texts: Data | None = None,
        wide: Widened | None = None,
        recording: bool = False,
        effort: Effort | None = None,
    ) -> None:
        self.recording = recording
        self.config, self.console, self.program = config, console, program
        self.threads = config.threads or 1
        self.effort = effort or (QUICK if config.quick else THOROUGH)
        self.target = named(config.target or "host")
        self.notes: list[str] = []
        self.eager = source_of(program, wide) if self.effort.eager else None
        if wide and wide.passes:
            console.say(wide.said)
            self.notes.append(wide.said)
        self.backend = OnnxRuntime(self.target)
        self.plain, self.lowering = self._lower()
        shapes = config.shapes or default_names(self.plain)
        if config.shapes is None and config.quick:
            shapes = tuple(dict.fromkeys((shapes[0], shapes[-1])))
        self.workloads: list[Workload] = workloads(self.plain, shapes, seed=config.seed)
        self._run_plain: Runner | None = None  # the export in ONNX Runtime, where judges hold it
        self.unverified = ""  # why quality can't be judged, in a sentence
        self.judging = self._judging(data, first, texts)
        given = texts if config.calibrate else data if config.data else None
        self.lengths = lengths(given, program) if given and config.out else None

    def of(self, config: RunConfig, console: Console) -> Work:
        """The same for another pipeline, whose notes follow those that are on all."""
        other = copy(self)
        other.config, other.console, other.notes = config, console, list(self.notes)
        return other

    def _lower(self) -> tuple[Program, tuple[StepEvidence, ...]]:
        """The model as it is, in ONNX: the baseline, and where pipelines that begin with to-onnx go on."""
        if self.program.dialect == "onnx":
            try:
                well_formed(self.program)
            except ContractError as error:  # every pass would be undone for what none of them did
                raise CaptureError(f"{self.config.model} is no valid model: {error}") from error
            return self.program, ()
        self.console.progress("lowering")
        lowering = Pipeline.parse("to-onnx").run(self.program, self.context(None))
        return lowering.program_or_raise(), tuple(map(StepEvidence, lowering.steps))

    def _judging(self, data: Data | None, first: Sequence[Pipeline], texts: Data | None) -> Judging | None:
        exact = all(isinstance(pass_.effect, Exact) for pipeline in first for pass_ in pipeline.passes)
        if exact and self.config.data is None and weight_bytes(self.plain) > HUGE:
            self.notes.append(
                "every pass is exact and was held to its tolerance on probe inputs; that is the quality"
            )
            return None
        reference = self._run_plain = self.backend.build(self.plain, threads=self.threads).run
        found = judging(data, self.program, reference, self.config.seed, texts)
        for sentence in found.said:
            self.console.say(sentence)
        self.notes += found.said
        self.reference = found.final(reference)
        if self.reference.nothing:
            why = f"the model {self.reference.nothing} on {found.source}"
            why = f"{found.source} has one row" if found.rows == 1 and data is not None else why
            sentence = f"{why}, so there is nothing to judge on"
            if self.config.data is not None:
                raise DataError(sentence)
            self.unverified = sentence
        if self.reference.said:
            doubt = (
                f"the original's {self.reference.metric} of {self.reference.said}: a loss may not show in it"
            )
            self.console.say(doubt)
            self.notes.append(doubt)
        return found

    @property
    def judged(self) -> Judging | None:
        """The judges, where they can judge."""
        return None if self.unverified else self.judging

    def begun(self, chain: Sequence[Pipeline], backend: Engine) -> list[Pipeline]:
        """A preset's pipelines, with what goes before to-onnx where the workloads gain by it."""
        feeds = [workload.feed for workload in self.workloads]
        return presets.begun(chain, self.program, feeds, backend, self.config.preset != "small")

    def forecast(self, first: Sequence[Pipeline]) -> str:
        """How long measuring will take, in a sentence, from one call of each workload."""
        run = self._run_plain or self.backend.build(self.plain, threads=self.threads).run
        calls: list[float] = []
        for workload in self.workloads:
            calls.append(_seconds(run, workload.feed))
            if calls[-1] < SHORT:  # the first call's own work shows in it
                calls[-1] = _seconds(run, workload.feed)
        gated = [pass_.gated() for pipeline in first for pass_ in pipeline.passes]
        decisions = sum(gated) if self.effort.gates else len(first)
        seconds = self.effort.estimate(decisions, 2 + len(first), calls)
        names = ", ".join(workload.name for workload in self.workloads)
        less = "" if self.config.quick else "; --quick measures less, --shapes others"
        return f"Measuring takes about {spoken(seconds)}, at {names}{less}"

    def evidence(self, measurer: Measurer | Replayed, timed: bool) -> Evidence:
        """An instrument for a pipeline. timed: whether gated passes are to be measured."""
        taken: dict[str, Ratio] | None = {} if self.recording else None
        return Evidence(measurer, self.judged, self.backend, self.threads, self.console, timed, taken)

    def context(self, evidence: Evidence | None) -> Context:
        """What passes get; less where no candidate is being made."""
        return Context(
            target=self.target,
            threads=self.threads,
            seed=self.config.seed,
            calibration=self.judging.calibration if evidence and self.judging else (),
            training=self.judging.training if evidence and self.judging else (),
            cache=cache_directory(),
            original=self.program if self.program.dialect == "fx" else None,
            score=evidence.score if evidence and self.judged else None,
            measure=evidence.measure if evidence and evidence.timed else None,
            gate=evidence.gate if evidence and evidence.timed else None,
            gates=self.effort.gates,
            conditions=evidence.measurer.conditions if evidence and not self.recording else None,
            progress=self.console.progress,
        )

    def scores(self, program: Program, runners: Iterable[tuple[str, Runner]]) -> dict[str, Score]:
        """Those of a candidate's graphs, by name; none where nothing can be judged.

        program: any of them, whose tokenizer is theirs.
        """
        if self.judged is None:
            return {}
        _, final = self.judged.of(program)
        return {name: final(runner) for name, runner in runners}

    def quality(self, scores: Iterable[Score]) -> Quality | None:
        """That of the worst of some graphs."""
        scores = list(scores)
        if self.judged is None or not scores:
            return None
        worst = max(scores, key=lambda score: score.drop_from(self.reference))
        drop = worst.drop_from(self.reference)
        return Quality(self.reference, worst, drop, self.judged.rows, self.judged.source)

    def portability(self, graphs: Sequence[Variant]) -> Portability:
        """On which instruction sets the int8 sums of the graphs are right."""
        feeds = self.judging.calibration if self.judging else [workload.feed for workload in self.workloads]
        programs = [graph.program for graph in graphs]
        return portability(programs, [fitting(feed, programs) for feed in feeds], self.threads)

    def compare(
        self,
        builds: Mapping[str, Contestant],
        programs: Iterable[Program],
        start: Callable[[str, str, Path, int], Any] | None = None,
    ) -> Comparison:
        """Contestants beside what the user would otherwise run: PyTorch, where the model came from there, and
        ONNX Runtime at its best settings on the un-rewritten export.

        programs: those that the contestants were built from, which the ids of every workload must fit.
        start: as `compare` takes it.
        """
        self.console.say("Comparing with what you would otherwise run")
        usual: dict[str, Contestant] = {} if self.eager is None else {PYTORCH: self.eager}
        return compare(
            {**usual, PLAIN: self.plain, **builds},
            fitted(self.workloads, programs),
            self.threads,
            rounds=self.effort.rounds,
            runs=self.effort.runs,
            seconds=self.effort.limit,
            warm=self.effort.warm,
            progress=self.console.progress,
            start=start,
        )

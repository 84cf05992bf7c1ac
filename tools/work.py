"""What one run does with its pipelines: lower once, try each, make graphs, measure them, judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.bundle import Variant
from ..backends.measure import Comparison, Workload, compare, workloads
from ..backends.onnxruntime import OnnxRuntime
from ..backends.ratios import Speedup
from ..backends.target import named
from ..ir.errors import ContractError, PipelineError
from ..ir.program import Program
from ..ir.size import weight_bytes
from ..passes.base import Context, Exact, Pass, Ratio, Run
from ..passes.instruments import Dump, Instrument
from ..passes.manager import Pipeline
from . import presets
from .config import RunConfig
from .console import Console
from .evidence import Evidence
from .judging import Judging, judging
from .outcome import PLAIN, PYTORCH, Quality, StepEvidence
from .variants import DEFAULT, choose, decisions, title

HUGE = 1 << 30  # bytes of weights, from which on exact pipelines are not judged a second time


@dataclass(frozen=True)
class Candidate:
    """A pipeline's result: the main graph first, then those for workloads better off without some pass."""

    pipeline: Pipeline
    steps: tuple[StepEvidence, ...]
    graphs: Mapping[str, Program]
    quality: Quality | None

    @property
    def drop(self) -> float:
        return self.quality.drop if self.quality else 0.0


def candidates(config: RunConfig, program: Program, given: Pipeline | None) -> list[Pipeline]:
    """The pipeline asked for, then gentler ones to fall back on when it misses the quality goal."""
    if given is not None or config.pipeline is not None:
        first = given if given is not None else Pipeline.parse(config.pipeline or "")
        chain = [first]
        while any(not isinstance(pass_.effect, Exact) for pass_ in chain[-1].passes):
            passes = chain[-1].passes
            last = max(i for i, pass_ in enumerate(passes) if not isinstance(pass_.effect, Exact))
            chain.append(Pipeline(pass_ for i, pass_ in enumerate(passes) if i != last))
        return chain
    assert config.preset is not None
    names = (config.preset, *presets.SAFER[config.preset])
    return [presets.pipeline(name, program) for name in names]


class Work:
    """What every candidate of a run shares: the un-rewritten export, the workloads, the judges."""

    def __init__(self, config: RunConfig, console: Console, program: Program, first: Pipeline) -> None:
        self.config, self.console, self.program = config, console, program
        self.threads = config.threads or 1
        self.notes: list[str] = []
        self.backend = OnnxRuntime()
        self.plain, self.lowering = self._lower(first)
        self.workloads: list[Workload] = workloads(self.plain, config.shapes, seed=config.seed)
        self.judging = self._judging(first)

    def _lower(self, first: Pipeline) -> tuple[Program, tuple[StepEvidence, ...]]:
        """The model as it is, in ONNX: the baseline, and where pipelines that begin with to-onnx go on."""
        if self.program.dialect == "onnx":
            return self.program, ()
        self.console.say("Lowering the model as it is, to compare with")
        lowering = Pipeline.parse("to-onnx").run(self.program, self._context(None))
        if not lowering.ok:
            raise lowering.steps[-1].error or ContractError("the model could not be lowered to ONNX")
        return lowering.program, tuple(map(StepEvidence, lowering.steps))

    def _judging(self, first: Pipeline) -> Judging | None:
        exact = all(isinstance(pass_.effect, Exact) for pass_ in first.passes)
        if exact and self.config.data is None and weight_bytes(self.plain) > HUGE:
            self.notes.append(
                "every pass is exact and was held to its tolerance on probe inputs; that is the quality"
            )
            return None
        reference = self.backend.build(self.plain, threads=self.threads).run
        found = judging(self.config, self.program, reference)
        for sentence in found.said:
            self.console.say(sentence)
        self.notes += found.said
        self.reference = found.final(reference)
        return found

    def _context(self, evidence: Evidence | None) -> Context:
        return Context(
            target=named(self.config.target or "host"),
            threads=self.threads,
            seed=self.config.seed,
            calibration=self.judging.calibration if evidence and self.judging else (),
            score=evidence.score if evidence and self.judging else None,
            measure=evidence.measure if evidence else None,
            progress=self.console.progress,
        )

    def best(self, pipelines: Sequence[Pipeline]) -> tuple[Candidate, bool | None]:
        """The first pipeline that meets the quality goal; without one, the candidate that loses least."""
        goal = self.config.max_drop
        tried: list[Candidate] = []
        for pipeline in pipelines:
            self.console.say(f"Running {pipeline}")
            tried.append(self._candidate(pipeline))
            if goal is None:
                return tried[0], None
            if tried[-1].drop <= goal:
                if len(tried) > 1:
                    self.notes.append(
                        f"{pipelines[0]} lost {tried[0].drop:.2f} points, more than {goal:g}; "
                        f"this is {pipeline}"
                    )
                return tried[-1], True
        return min(tried, key=lambda candidate: candidate.drop), False

    def _candidate(self, pipeline: Pipeline) -> Candidate:
        evidence = Evidence(self.workloads, self.judging, self.threads, self.console)
        instruments: list[Instrument] = [evidence]
        if self.config.dump:
            instruments.append(Dump(self.config.dump))
        start, passes = self._start(pipeline)
        ran = Pipeline(passes).run(start, self._context(evidence), instruments=instruments, keep_going=True)
        if ran.program.dialect != "onnx":
            raise PipelineError(
                "the pipeline leaves a PyTorch graph, which no bundle can hold: end it with to-onnx"
            )
        graphs = {DEFAULT: ran.program, **self._variants(start, passes, ran)}
        shared = self.lowering if start is self.plain else ()
        return Candidate(pipeline, (*shared, *evidence.rows), graphs, self._quality(graphs.values()))

    def _start(self, pipeline: Pipeline) -> tuple[Program, Sequence[Pass]]:
        """Where the pipeline begins: behind its to-onnx where that is its first pass and has run already."""
        first = pipeline.passes[:1]
        if self.program.dialect == "fx" and first and str(Pipeline(first)) == "to-onnx":
            return self.plain, pipeline.passes[1:]
        return self.program, pipeline.passes

    def _variants(self, start: Program, passes: Sequence[Pass], ran: Run) -> dict[str, Program]:
        """A graph for each group of workloads that some measured pass slowed down, made without it."""
        found: dict[str, Program] = {}
        names = [pass_.name for pass_ in passes]
        for left_out in decisions(ran.steps, [workload.name for workload in self.workloads]):
            if not left_out:
                continue
            kept = [
                pass_
                for number, (pass_, step) in enumerate(zip(passes, ran.steps, strict=True))
                if number not in left_out and step.status in {"applied", "no change"}
            ]
            name = title(left_out, names)
            self.console.say(f"Making a second graph, {name}")
            again = Pipeline(kept).run(start, replace(self._context(None), **self._steering()))
            if again.ok:
                found[name] = again.program
        return found

    def _steering(self) -> dict[str, Any]:
        """What passes that need data get when nothing is timed."""
        evidence = Evidence(self.workloads, self.judging, self.threads, self.console)
        if self.judging is None:
            return {}
        return {"calibration": self.judging.calibration, "score": evidence.score}

    def _quality(self, graphs: Iterable[Program]) -> Quality | None:
        """That of the worst graph."""
        if self.judging is None:
            return None
        scores = [self.judging.final(self.backend.build(graph, threads=self.threads).run) for graph in graphs]
        worst = max(scores, key=lambda score: score.drop_from(self.reference))
        drop = worst.drop_from(self.reference)
        return Quality(self.reference, worst, drop, self.judging.rows, self.judging.source)

    def compare(self, candidate: Candidate) -> tuple[Comparison, dict[str, str], tuple[Variant, ...]]:
        """Every graph beside what the user would otherwise run, and which graph serves which workload.

        The un-rewritten export is a candidate too: where nothing beats it, it is what runs.
        """
        self.console.say("Comparing with what you would otherwise run")
        directory = self.program.info.get("directory")
        contestants: dict[str, Any] = {PYTORCH: Path(directory)} if directory else {}
        contestants |= {PLAIN: self.plain, **candidate.graphs}
        comparison = compare(
            contestants, self.workloads, self.threads, seed=self.config.seed, progress=self.console.progress
        )
        names = [workload.name for workload in self.workloads]
        dispatch = choose(
            names,
            [*candidate.graphs, PLAIN],
            lambda workload, a, b: _ratio(comparison.faster(workload, a, b)),
        )
        graphs = {**candidate.graphs, PLAIN: self.plain}
        used = [name for name in graphs if name in dispatch.values()]
        return comparison, dispatch, tuple(Variant(name, graphs[name]) for name in used)


def _ratio(speedup: Speedup) -> Ratio:
    return Ratio(speedup.median, speedup.low, speedup.high)

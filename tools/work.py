"""What one run does with its pipelines: lower once, try each, make graphs, measure them, judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.bundle import Variant
from ..backends.gate import Measurer
from ..backends.measure import Comparison, Workload, compare, workloads
from ..backends.onnxruntime import OnnxRuntime
from ..backends.target import named
from ..ir.errors import ContractError, PipelineError
from ..ir.program import Program
from ..ir.size import weight_bytes
from ..passes.base import Context, Exact, Pass, Ratio, Run
from ..passes.instruments import Dump, Instrument
from ..passes.manager import Pipeline
from ..passes.quantize.layer import Layer
from . import presets
from .config import RunConfig
from .console import Console
from .data import Data
from .evidence import Evidence
from .judging import Judging, judging
from .outcome import PLAIN, PYTORCH, Quality, StepEvidence
from .portability import Portability, portability
from .variants import DEFAULT, choose, decisions, title

PLAIN_GRAPH = "plain"
RUNS, SECONDS = 4, 1.0  # of a turn in the final comparison, which has 7 rounds
HUGE = 1 << 30  # bytes of weights, from which on exact pipelines are not judged a second time


@dataclass(frozen=True)
class Candidate:
    """A pipeline's result: the main graph first, then those for workloads better off without some pass.

    made_for: workload -> its graph, where that is not the main one.
    """

    pipeline: Pipeline
    steps: tuple[StepEvidence, ...]
    graphs: Mapping[str, Program]
    quality: Quality | None
    layers: tuple[Layer, ...]
    made_for: Mapping[str, str]

    @property
    def drop(self) -> float:
        return self.quality.drop if self.quality else 0.0


def candidates(config: RunConfig, program: Program, given: Pipeline | None) -> list[Pipeline]:
    """The pipeline asked for, then gentler ones to fall back on when it misses the quality goal."""
    if given is not None:
        chain = [given]
        while any(not isinstance(pass_.effect, Exact) for pass_ in chain[-1].passes):
            passes = chain[-1].passes
            last = max(i for i, pass_ in enumerate(passes) if not isinstance(pass_.effect, Exact))
            chain.append(Pipeline(pass_ for i, pass_ in enumerate(passes) if i != last))
        return chain
    assert config.preset is not None
    return presets.chain(config.preset, program)


class Work:
    """What every candidate of a run shares: the un-rewritten export, the workloads, the judges."""

    def __init__(
        self,
        config: RunConfig,
        console: Console,
        program: Program,
        data: Data | None,
        first: Pipeline,
        texts: Data | None = None,
    ) -> None:
        self.config, self.console, self.program = config, console, program
        self.threads = config.threads or 1
        self.target = named(config.target or "host")
        self.timed = config.preset != "small"  # there bytes decide: one graph, whatever it takes
        self.notes: list[str] = []
        self.backend = OnnxRuntime()
        self.plain, self.lowering = self._lower(first)
        self.workloads: list[Workload] = workloads(self.plain, config.shapes, seed=config.seed)
        self.measurer = Measurer(self.workloads, self.threads, self.target, progress=console.progress)
        self.judging = self._judging(data, first, texts)

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.measurer.close()

    def _evidence(self) -> Evidence:
        return Evidence(self.measurer, self.judging, self.backend, self.threads, self.console)

    def _lower(self, first: Pipeline) -> tuple[Program, tuple[StepEvidence, ...]]:
        """The model as it is, in ONNX: the baseline, and where pipelines that begin with to-onnx go on."""
        if self.program.dialect == "onnx":
            return self.program, ()
        self.console.progress("lowering")
        lowering = Pipeline.parse("to-onnx").run(self.program, self._context(None))
        if not lowering.ok:
            raise lowering.steps[-1].error or ContractError("the model could not be lowered to ONNX")
        return lowering.program, tuple(map(StepEvidence, lowering.steps))

    def _judging(self, data: Data | None, first: Pipeline, texts: Data | None) -> Judging | None:
        exact = all(isinstance(pass_.effect, Exact) for pass_ in first.passes)
        if exact and self.config.data is None and weight_bytes(self.plain) > HUGE:
            self.notes.append(
                "every pass is exact and was held to its tolerance on probe inputs; that is the quality"
            )
            return None
        reference = self.backend.build(self.plain, threads=self.threads).run
        found = judging(data, self.program, reference, self.config.seed, texts)
        for sentence in found.said:
            self.console.say(sentence)
        self.notes += found.said
        self.reference = found.final(reference)
        return found

    def _context(self, evidence: Evidence | None) -> Context:
        return Context(
            target=self.target,
            threads=self.threads,
            seed=self.config.seed,
            calibration=self.judging.calibration if evidence and self.judging else (),
            original=self.program if self.program.dialect == "fx" else None,
            score=evidence.score if evidence and self.judging else None,
            measure=evidence.measure if evidence and self.timed else None,
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
        evidence = self._evidence()
        instruments: list[Instrument] = [evidence]
        if self.config.dump:
            instruments.append(Dump(self.config.dump))
        start, passes = self._start(pipeline)
        ran = Pipeline(passes).run(start, self._context(evidence), instruments=instruments, keep_going=True)
        if ran.program.dialect != "onnx":
            raise PipelineError(
                "the pipeline leaves a PyTorch graph, which no bundle can hold: end it with to-onnx"
            )
        variants, made_for = self._variants(start, passes, ran)
        graphs = {DEFAULT: ran.program, **variants}
        shared = self.lowering if start is self.plain else ()
        rows, layers = (*shared, *evidence.rows), tuple(evidence.layers)
        return Candidate(pipeline, rows, graphs, self._quality(graphs.values()), layers, made_for)

    def _start(self, pipeline: Pipeline) -> tuple[Program, Sequence[Pass]]:
        """Where the pipeline begins: behind its to-onnx where that is its first pass and has run already."""
        first = pipeline.passes[:1]
        if self.program.dialect == "fx" and first and str(Pipeline(first)) == "to-onnx":
            return self.plain, pipeline.passes[1:]
        return self.program, pipeline.passes

    def _variants(
        self, start: Program, passes: Sequence[Pass], ran: Run
    ) -> tuple[dict[str, Program], dict[str, str]]:
        """A graph for each group of workloads that some measured pass slows down or cannot help, made without
        it; and workload -> graph."""
        found: dict[str, Program] = {}
        made_for: dict[str, str] = {}
        names = [pass_.name for pass_ in passes]
        feeds = {workload.name: workload.feed for workload in self.workloads}

        def pays(number: int, workload: str) -> bool:
            return passes[number].pays(self.plain, feeds[workload])

        for left_out, served in decisions(ran.steps, list(feeds), pays).items():
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
                made_for |= dict.fromkeys(served, name)
        return found, made_for

    def _steering(self) -> dict[str, Any]:
        """What passes that need data get when nothing is timed."""
        if self.judging is None:
            return {}
        return {"calibration": self.judging.calibration, "score": self._evidence().score}

    def _quality(self, graphs: Iterable[Program]) -> Quality | None:
        """That of the worst graph."""
        if self.judging is None:
            return None
        scores = [self.judging.final(self.backend.build(graph, threads=self.threads).run) for graph in graphs]
        worst = max(scores, key=lambda score: score.drop_from(self.reference))
        drop = worst.drop_from(self.reference)
        return Quality(self.reference, worst, drop, self.judging.rows, self.judging.source)

    def dispatch(self, candidate: Candidate) -> tuple[dict[str, str], tuple[Variant, ...]]:
        """Which graph serves which workload, and the graphs that serve any, the default first.

        The un-rewritten export is a candidate too: where nothing beats it, it is what runs.
        """
        graphs = {**candidate.graphs, PLAIN_GRAPH: self.plain}
        if not self.timed:
            graphs = {DEFAULT: candidate.graphs[DEFAULT]}
        known: dict[tuple[str, str, str], Ratio] = {}

        def faster(workload: str, a: str, b: str) -> Ratio:
            if (workload, a, b) not in known:
                ratio = self.measurer(graphs[b], graphs[a], only=workload)[workload]
                known[workload, a, b] = Ratio(ratio.median, ratio.low, ratio.high)
                known[workload, b, a] = Ratio(1 / ratio.median, 1 / ratio.high, 1 / ratio.low)
            return known[workload, a, b]

        names = [workload.name for workload in self.workloads]
        chosen = choose(names, list(graphs), faster, candidate.made_for if self.timed else None)
        used = [name for name in graphs if name in chosen.values()]
        return chosen, tuple(Variant(name, graphs[name]) for name in used)

    def portability(self, graphs: Sequence[Variant]) -> Portability:
        """On which instruction sets the int8 sums of the graphs are right."""
        feeds = self.judging.calibration if self.judging else [workload.feed for workload in self.workloads]
        return portability((graph.program for graph in graphs), feeds, self.threads)

    def compare(self, graphs: Sequence[Variant]) -> Comparison:
        """The graphs beside what the user would otherwise run: PyTorch, where the model came from there, and
        ONNX Runtime at its best settings on the un-rewritten export."""
        self.console.say("Comparing with what you would otherwise run")
        self.measurer.close()
        source = Path(str(self.program.info.get("source", "")))
        contestants: dict[str, Any] = {PYTORCH: source} if (source / "config.json").is_file() else {}
        contestants |= {PLAIN: self.plain} | {graph.name: graph.program for graph in graphs}
        return compare(
            contestants,
            self.workloads,
            self.threads,
            runs=RUNS,
            seconds=SECONDS,
            seed=self.config.seed,
            progress=self.console.progress,
        )

"""What every backend does with its pipelines: tries each, judges what comes out, falls back where a goal is
missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, ClassVar

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant
from ...ir.errors import PipelineError
from ...ir.program import Program
from ...passes.manager.bisect import Bisect
from ...passes.manager.contract import Pass, Run
from ...passes.manager.instruments import Dump, Instrument
from ...passes.manager.pipeline import Pipeline
from ...passes.manager.reproducer import Reproducer
from ...passes.quantize.report.layer import Layer
from ..judge.quality import Runner, Score
from .evidence import Evidence
from .replay import Replay
from .stages import Stages
from .steps import Quality, StepEvidence
from .work import Work


@dataclass(frozen=True)
class Candidate:
    """A pipeline's result: the main graph first, then those for workloads better off without some pass.

    made_for: workload -> its graph, where that is not the main one. made_of: graph -> numbers of the steps
    that are in it. scores: graph -> its score, where any could be judged. made_by: weight of a layer ->
    number of the step that quantized it. replay: what its passes measured and chose, as far as that was kept.
    stages: the main graph before and after each pass, where it is to be shown; blocks: which block each value
    of it is in.
    """

    pipeline: Pipeline
    steps: tuple[StepEvidence, ...]
    graphs: Mapping[str, Program]
    quality: Quality | None
    layers: tuple[Layer, ...]
    made_for: Mapping[str, str]
    made_of: Mapping[str, Sequence[int]] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    made_by: Mapping[str, int] = field(default_factory=dict)
    replay: Replay = field(default_factory=Replay)
    stages: Mapping[str, Any] | None = None
    blocks: Mapping[str, str] = field(default_factory=dict)

    @property
    def drop(self) -> float:
        return self.quality.drop if self.quality else 0.0


@dataclass(frozen=True)
class Build:
    """What a backend made of its best candidate; its steps, quality and layers are those of the graphs kept.

    met: whether the quality goal was, None without one. graphs: those kept; the first is the default.
    dispatch: workload -> graph. contestants: by graph, what is to be measured; none where this machine can't
    run them. artifact: what TVM compiled, for the backend that does.
    """

    backend: Engine
    candidate: Candidate
    met: bool | None
    graphs: tuple[Variant, ...]
    dispatch: Mapping[str, str]
    contestants: Mapping[str, Any]
    artifact: Any = None


@dataclass(frozen=True)
class Made:
    """Graphs by name, the main one first. made_for: workload -> its graph, where that is not the main one.
    made_of: graph -> numbers of the passes that are in it."""

    graphs: dict[str, Program]
    made_of: dict[str, Sequence[int]]
    made_for: dict[str, str] = field(default_factory=dict)


class Building:
    """Candidates of one backend. Use it in a `with`: it holds processes and temporary files."""

    backend: ClassVar[Engine]

    def __init__(self, work: Work) -> None:
        self.work = work
        self.config, self.console = work.config, work.console

    def __enter__(self) -> Building:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End processes and remove temporary files."""

    def evidence(self) -> Evidence:
        """An instrument that times with this backend."""
        raise NotImplementedError

    def watching(self) -> list[Instrument]:
        """Further instruments of a candidate's run."""
        return []

    def graphs(self, start: Program, passes: Sequence[Pass], ran: Run) -> Made:
        """The graphs of a candidate, the main one first."""
        raise NotImplementedError

    def runner(self, program: Program) -> Runner:
        """What judges ask."""
        raise NotImplementedError

    def finished(self, candidate: Candidate, met: bool | None) -> Build:
        """The candidate, ready to be compared and written."""
        raise NotImplementedError

    def best(self, pipelines: Sequence[Pipeline]) -> Build:
        """The first pipeline that meets the quality goal; without one, the candidate that loses least."""
        goal = self.config.max_drop
        tried: list[Candidate] = []
        for pipeline in pipelines:
            self.console.say(f"Running {pipeline}")
            tried.append(self._candidate(pipeline))
            if goal is None or self.work.unverified:
                return self.finished(tried[0], None)
            if tried[-1].drop <= goal:
                if len(tried) > 1:
                    self.work.notes.append(
                        f"{pipelines[0]} lost {tried[0].drop:.2f} points, more than {goal:g}; "
                        f"this is {pipeline}"
                    )
                return self.finished(tried[-1], True)
        least = min(tried, key=lambda candidate: candidate.drop)
        if len(tried) > 1:
            self.work.notes.append(
                f"{len(tried)} pipelines were tried and each lost more than {goal:g} points; this is the one "
                f"that lost least, {least.pipeline}"
            )
        return self.finished(least, False)

    def _candidate(self, pipeline: Pipeline) -> Candidate:
        evidence = self.evidence()
        stages = Stages()
        watched = self.config.out is not None
        instruments: list[Instrument] = [evidence, *self.watching(), *([stages] if watched else [])]
        if self.config.bisect:
            instruments.insert(0, Bisect())
        if self.config.dump:
            instruments.append(Dump(self.config.dump))
        if self.config.reproduce:
            instruments.append(Reproducer(self.config.reproduce))
        start, passes = self.start(pipeline)
        if watched and start is not self.work.program:
            stages.add("as captured", self.work.program)
        self.chosen: dict[Any, Any] = {}
        context = replace(self.work.context(evidence), chosen=self.chosen, runtime=self.backend)
        ran = Pipeline(passes).run(start, context, instruments=instruments, keep_going=True)
        if ran.program.dialect != "onnx":
            for step in ran.steps:
                if step.error is not None:
                    raise step.error
            raise PipelineError(
                "the pipeline leaves a PyTorch graph, which no bundle can hold: end it with to-onnx"
            )
        made = self.graphs(start, passes, ran)
        shared = self.work.lowering if start is self.work.plain else ()
        scores = self.work.scores(
            ran.program, ((name, self.runner(graph)) for name, graph in made.graphs.items())
        )
        return Candidate(
            pipeline,
            (*shared, *evidence.rows),
            made.graphs,
            self.work.quality(scores.values()),
            tuple(evidence.layers),
            made.made_for,
            {
                name: (*range(len(shared)), *(len(shared) + number for number in numbers))
                for name, numbers in made.made_of.items()
            },
            scores,
            {weight: len(shared) + number for weight, number in evidence.made_by.items()},
            Replay(evidence.taken or {}, self.chosen),
            # The files of a bundle that is to be rebuilt from a lock follow from its manifest alone.
            None if self.work.recording else stages.to_json(),
            stages.blocks,
        )

    def kept(
        self, candidate: Candidate, names: Sequence[str], met: bool | None
    ) -> tuple[Candidate, bool | None]:
        """The candidate as far as it is in the graphs that are kept, and whether those meet the goal."""
        steps = tuple(
            replace(each, graphs=tuple(name for name in names if number in candidate.made_of[name]))
            for number, each in enumerate(candidate.steps)
        )
        layers = tuple(layer for layer in candidate.layers if steps[candidate.made_by[layer.weight]].graphs)
        quality = self.work.quality(candidate.scores[name] for name in names if name in candidate.scores)
        if met is not None and quality is not None and self.config.max_drop is not None:
            met = quality.drop <= self.config.max_drop
        return replace(candidate, steps=steps, layers=layers, quality=quality), met

    def start(self, pipeline: Pipeline) -> tuple[Program, Sequence[Pass]]:
        """Where the pipeline begins: behind its to-onnx where that is its first pass and has run already."""
        first = pipeline.passes[:1]
        if self.work.program.dialect == "fx" and first and str(Pipeline(first)) == "to-onnx":
            return self.work.plain, pipeline.passes[1:]
        return self.work.program, pipeline.passes

"""Candidates for TVM: one graph, compiled at the run's sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant
from ...backends.measuring.gate import Measurer
from ...backends.tvm.backend import ready
from ...ir.program import Program
from ...passes.manager.contract import Pass, Run
from ..judge.quality import Runner
from .building import Build, Building, Candidate, Made
from .compiling import Compiler
from .evidence import Evidence
from .work import Work

GRAPH = "tvm"


class Compiled(Building):
    """Gated passes are timed as they will run: both programs compiled.

    Where this machine can't run what is compiled, quality is that of the graph in ONNX Runtime, and nothing
    is timed.
    """

    backend: ClassVar[Engine] = "tvm"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        ready(work.target, work.plain)
        feeds = work.judging.calibration if work.judging and work.judging.source == "probe inputs" else ()
        self.compiler = Compiler(work.plain, work.target, work.threads, work.workloads, feeds, work.console)
        work.notes += [note] if (note := self.compiler.cut()) else []
        self.here = self.compiler.runs_here()
        if not self.here:
            work.notes.append(
                f"it is compiled for {work.target.name}, which this machine is not: its quality is that of "
                "its graph in ONNX Runtime, and it was not timed"
            )
        self.measurer = Measurer(
            work.workloads,
            work.threads,
            work.target,
            effort=work.effort,
            remember=False,  # what is remembered would outlive changes of the kernels
            progress=work.console.progress,
            contestant=self.compiler.contestant,
        )

    def close(self) -> None:
        self.measurer.close()
        self.compiler.close()

    def evidence(self) -> Evidence:
        return self.work.evidence(self.measurer, self.here and self.config.preset != "small")

    def graphs(self, start: Program, passes: Sequence[Pass], ran: Run) -> Made:
        return Made({GRAPH: ran.program}, {GRAPH: ran.applied})

    def runner(self, program: Program) -> Runner:
        if not self.here:
            return self.work.backend.build(program, threads=self.work.threads).run
        return self.compiler(program).run

    def finished(self, candidate: Candidate, met: bool | None) -> Build:
        program = candidate.graphs[GRAPH]
        artifact = self.compiler(program)
        # ONNX Runtime's kernels and their times are none of this build's.
        layers = (
            replace(each, kernel="compiled", before_us=None, after_us=None) for each in candidate.layers
        )
        candidate, met = self.kept(replace(candidate, layers=tuple(layers)), [GRAPH], met)
        dispatch = {workload.name: GRAPH for workload in self.work.workloads}
        contestants = {GRAPH: self.compiler.contestant(program)[1]} if self.here else {}
        self.measurer.close()
        return Build(
            self.backend, candidate, met, (Variant(GRAPH, program),), dispatch, contestants, artifact
        )

"""Times and scores what a pipeline does while it runs, and keeps what it saw beside each step."""

from __future__ import annotations

from collections.abc import Mapping

from ...backends.measuring.energy import Meter
from ...backends.measuring.gate import Measurer
from ...backends.measuring.workloads import fitting
from ...backends.runtimes.onnxruntime import OnnxRuntime
from ...ir.evaluated import evaluated
from ...ir.execute import execute
from ...ir.program import Program
from ...passes.manager.contract import Context, Exact, Pass, Ratio, Step
from ...passes.manager.instruments import Instrument
from ...passes.quantize.report.layer import Layer
from ...passes.quantize.report.layers import layers
from ..console import Console
from ..judge.judging import Judging
from ..judge.quality import Score
from .replay import Replayed, asked
from .steps import StepEvidence


class Evidence(Instrument):
    """Measures gated passes for the manager (`measure`, where `timed`), scores lossy ones, keeps a row a
    step, and what quantizing steps did to each layer (`layers`): the last one that changed its weight.
    taken: every ratio that passes were given, under `asked`; None keeps none."""

    def __init__(
        self,
        measurer: Measurer | Replayed,
        judging: Judging | None,
        backend: OnnxRuntime,
        threads: int,
        console: Console,
        timed: bool = True,
        taken: dict[str, Ratio] | None = None,
    ) -> None:
        self.measurer = measurer
        self.judging = judging
        self.backend = backend
        self.threads = threads
        self.console = console
        self.timed = timed
        self.taken = taken
        self.rows: list[StepEvidence] = []
        self.layers: list[Layer] = []
        self.made_by: dict[str, int] = {}  # weight of a layer -> row of the step that its entry is about
        self._ms: Mapping[str, float] = {}
        self._meter = Meter()
        self._drawn = self._meter.joules()

    def measure(
        self, before: Program, after: Program, only: str | None = None, processes: int = 1
    ) -> Mapping[str, Ratio]:
        """Speed-up of `after` over `before` at each workload, or at one, over so many processes of each."""
        return self._kept(before, after, self.measurer(before, after, only, processes), processes)

    def gate(self, before: Program, after: Program) -> Mapping[str, Ratio]:
        """The same at each workload, measured as far as tells whether `after` is slower."""
        return self._kept(before, after, self.measurer(before, after, whether=True))

    def _kept(
        self, before: Program, after: Program, ratios: Mapping[str, Ratio], processes: int = 1
    ) -> Mapping[str, Ratio]:
        if self.taken is not None:
            self.taken |= {asked(before, after, name, processes): each for name, each in ratios.items()}
        self._ms = dict(self.measurer.ms)
        return ratios

    def score(self, program: Program) -> float:
        """Quality on the rows that tune, higher is better, as passes want it."""
        score = self.judged(program)
        return score.value if score.higher_is_better else -score.value

    def judged(self, program: Program) -> Score:
        """Quality on the rows that tune."""
        assert self.judging is not None
        tune, _ = self.judging.of(program)
        if program.dialect == "fx":
            module = evaluated(program)
            return tune(lambda feed: execute(module, [feed])[0])
        return tune(self.backend.build(program, threads=self.threads).run)

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        lossy = step.status == "applied" and not isinstance(step.effect, Exact)
        judged = lossy and after.dialect == "onnx" and self.judging is not None
        drawn, before_it = self._meter.joules(), self._drawn
        joules = None if drawn is None or before_it is None else drawn - before_it
        self._drawn = drawn
        score = self.judged(after) if judged else None
        self.rows.append(StepEvidence(step, self._ms if step.ratios else {}, score, joules=joules))
        if lossy and before.dialect == after.dialect:
            workload = fitting(self.measurer.workloads[0].feed, [before, after])
            feeds = context.calibration or [workload]
            found = layers(before, after, feeds, workload, self.threads)
            changed = {layer.weight for layer in found}
            self.made_by |= dict.fromkeys(changed, len(self.rows) - 1)
            self.layers = [*found, *(layer for layer in self.layers if layer.weight not in changed)]
        self._ms = {}
        state = {"applied": "done", "slower": "measured slower here, undone"}.get(step.status, step.status)
        seconds = step.seconds + step.check_seconds
        self.console.say(f"  {step.text}: {state} ({seconds:.1f} s). {step.counted}".rstrip(". "))

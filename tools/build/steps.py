"""What a run measured of one step, of quality and of a build that was not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...backends.base import Engine
from ...passes.manager.contract import Step
from ...passes.manager.pipeline import Pipeline
from ..judge.quality import Score

PYTORCH, PLAIN, BUNDLE = "PyTorch eager", "ONNX Runtime", "bundle"
EXPORT = "plain"  # the graph of a bundle that no pass rewrote


@dataclass(frozen=True)
class StepEvidence:
    """A step, the time of a call after it (ms by workload, where it was measured) and the quality after it
    (on the rows that tune, where the step may cost any). graphs: those of the bundle that it is in; None
    where there is no bundle yet. joules: that the machine drew during it, checks and measuring included; None
    where it doesn't tell."""

    step: Step
    ms: Mapping[str, float] = field(default_factory=dict)
    score: Score | None = None
    graphs: tuple[str, ...] | None = None
    joules: float | None = None

    @property
    def status(self) -> str:
        """The step's, unless nothing of it is in the bundle."""
        return "not kept" if self.step.status == "applied" and self.graphs == () else self.step.status


@dataclass(frozen=True)
class Quality:
    """reference: the original's score. score: that of the worst graph of the bundle. drop: points lost."""

    reference: Score
    score: Score
    drop: float
    rows: int
    source: str

    def to_json(self) -> dict[str, Any]:
        scores = {"reference": self.reference.to_json(), "score": self.score.to_json()}
        return {**scores, "drop": self.drop, "rows": self.rows, "source": self.source}


@dataclass(frozen=True)
class Other:
    """The build that was not kept. dispatch: workload -> its graph. ratio: how many times as fast the kept
    one is, the geometric mean over the workloads."""

    backend: Engine
    pipeline: str
    dispatch: Mapping[str, str]
    ratio: float
    quality: Quality | None
    met: bool | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "quality": self.quality.to_json() if self.quality else None}


SPARED = 0.01  # of the weights, from which on a pass counts as asked for what it spares


def spares_weights(steps: Sequence[StepEvidence]) -> bool:
    """Whether a pass that no clock decides on made the weights smaller: whoever asked for it asked for that,
    and the un-rewritten export is no substitute, however fast."""
    held = [each.step for each in steps if each.step.status == "applied"]
    return any(
        step.bytes_after < (1 - SPARED) * step.bytes_before
        for step in held
        if not Pipeline.parse(step.text).passes[0].gated()
    )


def step_json(each: StepEvidence) -> dict[str, Any]:
    """One step's evidence."""
    step = each.step
    return {
        "pass": step.text,
        "effect": {"kind": type(step.effect).__name__.lower(), **asdict(step.effect)},
        "status": each.status,
        "graphs": None if each.graphs is None else list(each.graphs),
        "seconds": round(step.seconds, 3),
        "check_seconds": round(step.check_seconds, 3),
        "bytes": [step.bytes_before, step.bytes_after],
        "statistics": dict(step.statistics),
        "notes": list(step.notes),
        "curves": {name: [list(point) for point in points] for name, points in step.curves.items()},
        "joules": each.joules,
        "rewrites": list(step.rewrites),
        "ms": {name: round(value, 4) for name, value in each.ms.items()},
        "ratios": {name: asdict(ratio) for name, ratio in step.ratios.items()},
        "quality": each.score.to_json() if each.score else None,
        "missed": step.missed or None,
        "error": str(step.error) if step.error else None,
    }

"""What a run found: the evidence for every step, the graphs, the measurements, the quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant
from ...backends.measuring.measure import Comparison
from ...ir.errors import ContractError
from ...ir.program import Program
from ...passes.manager.contract import Exact
from ...passes.quantize.report.layer import Layer, to_json
from ..config import RunConfig
from ..judge.neighbours import Neighbours
from .portability import Portability
from .replay import Replay
from .steps import BUNDLE, Other, Quality, StepEvidence, step_json


@dataclass(frozen=True)
class Facts:
    """What `optimize` found.

    steps: evidence for each pass of the main graph. graphs: those kept; the first is the default. dispatch:
    workload -> graph. comparison: every contestant at every workload. portability: of int8 sums, over
    instruction sets. layers: what quantization did to each. met: whether the quality goal was, None
    without one. bundle: where it was written, None if it was not to be. backend: what the bundle runs on.
    other: the build for another backend, where two were compared. unverified: why nothing could be verified
    or judged, a sentence each. weight_bytes: of the bundle's graphs together, and of the original.
    neighbours: how far outputs depend on the call that a row is in, None where that was not measured.
    replay: what passes measured and chose, complete where the run was asked to record it.
    """

    config: RunConfig
    source: Program
    pipeline: str
    steps: tuple[StepEvidence, ...]
    graphs: tuple[Variant, ...]
    dispatch: Mapping[str, str]
    comparison: Comparison
    portability: Portability
    layers: tuple[Layer, ...]
    quality: Quality | None
    met: bool | None
    notes: tuple[str, ...]
    seconds: float
    bundle: Path | None = None
    backend: Engine = "onnxruntime"
    other: Other | None = None
    unverified: tuple[str, ...] = ()
    weight_bytes: tuple[int, int] | None = None
    neighbours: Neighbours | None = None
    replay: Replay = field(default_factory=Replay)

    @property
    def status(self) -> int:
        """The exit status: 0; 1 when a pass was rolled back or refused, unless told to keep going; 3 when the
        quality goal was not met, or what a pass was asked for, or a promise, or where nothing could be
        verified."""
        if self.met is False or self.unverified or any(each.step.missed for each in self.steps):
            return 3
        if self.broken:
            return 3
        failed = any(each.step.error for each in self.steps)
        return 1 if failed and not self.config.keep_going else 0

    @property
    def failures(self) -> list[str]:
        """A sentence for everything that keeps the status from being 0."""
        sentences = [each.step.failure for each in self.steps if each.step.error is not None]
        sentences += [
            f"{each.step.missed}; the best candidate is saved all the same"
            for each in self.steps
            if each.step.missed
        ]
        sentences += [
            f"not verified: {sentence}; the bundle is saved all the same" for sentence in self.unverified
        ]
        sentences += [f"{sentence}; the bundle is saved all the same" for sentence in self.broken]
        if self.met is False and self.quality is not None:
            sentences.append(
                f"the goal was not met: {self.quality.drop:.2f} points of {self.quality.score.metric} are "
                f"lost, and at most {self.config.max_drop:g} may be; the best candidate is saved all the same"
            )
        return sentences

    @property
    def rewrites(self) -> list[StepEvidence]:
        """The steps that changed the program, but for lowering it."""
        changed = [each for each in self.steps if each.step.status == "applied"]
        return [each for each in changed if each.step.text.partition("{")[0] != "to-onnx"]

    @property
    def unrewritten(self) -> list[str]:
        """The workloads that run the model as it came: no pass is in their graph but its lowering."""
        rewritten = {
            graph
            for each in self.rewrites
            for graph in (each.graphs if each.graphs is not None else self.dispatch.values())
        }
        if self.backend != "onnxruntime":
            return []  # compiled, at least
        return [workload for workload, graph in self.dispatch.items() if graph not in rewritten]

    @property
    def faults(self) -> list[str]:
        """Contracts that passes broke: faults of graphwright's, a sentence each."""
        return [str(each.step.error) for each in self.steps if isinstance(each.step.error, ContractError)]

    @property
    def broken(self) -> list[str]:
        """Promises that the bundle as it runs does not keep, a sentence each: equal outputs where every pass
        promises them, and with a preset outputs that don't depend on the call."""
        found, sentences = self.neighbours, []
        if found is None:
            return []
        if self.exact and found.limit is not None and found.distance > found.limit:
            sentences.append(
                f"the bundle promises the captured model's outputs and is {found.distance:.1g} away from "
                f"them (limit {found.limit:.1g})"
            )
        if self.config.pipeline is None and not found.kept:
            sentences.append("the output for a row depends on the call that it is in, and should not")
        return sentences

    @property
    def exact(self) -> bool:
        """Whether every pass that changed what is in the bundle keeps its outputs."""
        held = (each.step for each in self.rewrites if each.graphs is None or each.graphs)
        return all(isinstance(step.effect, Exact) for step in held)

    @property
    def measured(self) -> bool:
        """Whether the bundle was timed: this machine can't run what is compiled for another processor."""
        return set(self.dispatch.values()) <= self.comparison.cells.keys()

    def ms(self, contestant: str, workload: str) -> float:
        """Median milliseconds of a call; the bundle's are those of the graph it picks."""
        name = self.dispatch[workload] if contestant == BUNDLE else contestant
        return self.comparison.cells[name][workload].ms

    def to_json(self) -> dict[str, Any]:
        """Everything but the graphs, as the manifest and --json hold it."""
        return {
            "config": self.config.model_dump(mode="json", by_alias=True, exclude_none=True),
            "pipeline": self.pipeline,
            "backend": self.backend,
            "other": self.other.to_json() if self.other else None,
            "steps": [step_json(each) for each in self.steps],
            "graphs": [variant.name for variant in self.graphs],
            "dispatch": dict(self.dispatch),
            "measurements": self.comparison.to_json(),
            "portability": self.portability.to_json(),
            "quantization": to_json(self.layers),
            "quality": self.quality.to_json() if self.quality else None,
            "neighbours": self.neighbours.to_json() if self.neighbours else None,
            "met": self.met,
            "unverified": list(self.unverified),
            "unrewritten": self.unrewritten,
            "faults": self.faults,
            "weight_bytes": list(self.weight_bytes) if self.weight_bytes else None,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
            "bundle": str(self.bundle) if self.bundle else None,
            "status": self.status,
        }

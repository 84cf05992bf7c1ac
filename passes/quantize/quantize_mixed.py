"""quantize-mixed: a precision for each layer, from what it costs and what it loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.inputs.probe import probes
from ...ir.program import Program
from ..common.allocate import allocate
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between
from .int8.hidden_rows import nan_sources
from .int8.sites import quantized
from .int8.weights import limit_for
from .mixed.costs import Costs, bytes_of, seconds, variants
from .mixed.losses import Losses, by_cosine, by_hessian, by_score
from .mixed.units import PRECISIONS, Precision, Unit, assign, units

OLDEST_OPSET = 11  # the first with DynamicQuantizeLinear


@dataclass(frozen=True)
class QuantizeMixed(Pass):
    """Give each linear layer float, int8 or 4-bit weights: the least loss within a budget of time or bytes.

            y = MatMul(x, w)
        ->  y = MatMul(x, w) or a product of int8 or of 4-bit weights, layer by layer

    After Q-BERT (Shen et al., 2020, arXiv:1909.05840) and HAWQ-V3 (Yao et al., 2021, arXiv:2011.10680). int8
    is as in quantize-dynamic, 4 bits as in quantize-weights with groups of 32 and products in int8. Nothing
    is assumed of either: each layer is timed in each precision by ONNX Runtime's profiler, on the first
    calibration feed. Embedding tables stay as they are.

    budget: what is limited: "latency", the time of the linear layers, or "size", the bytes of their weights.
    limit: to this share of what they take in float.
    by: what is kept small: "cosine", the distance of the outputs with this layer alone quantized; "score",
        the drop of the user's metric, likewise (needs labelled data); "hessian", half of trace / size of the
        Hessian by a weight times the squared error of its numbers (needs a model captured from PyTorch).
    """

    name: ClassVar[str] = "quantize-mixed"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    in_bodies: ClassVar = False
    varies: ClassVar = {"budget": ("latency", "size"), "limit": Between(0.2, 0.9)}

    budget: Literal["latency", "size"] = "latency"
    limit: float = 0.5
    by: Literal["cosine", "score", "hessian"] = "cosine"

    def __post_init__(self) -> None:
        if not 0 < self.limit <= 1:
            raise ValueError(
                f"limit is {self.limit:g}, and a share of what float takes is above 0, at most 1"
            )

    def gated(self) -> bool:
        return self.budget == "latency"

    def requires(self) -> tuple[str, ...]:
        return {"cosine": (), "score": ("score",), "hessian": ("original",)}[self.by]

    def run(self, program: Program, context: Context) -> Result:
        if (operator := quantized(program.graph)) is not None:
            return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
        opset = program.graph.graph.opset_imports.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            note = f"opset {opset} has no DynamicQuantizeLinear: convert the model to {OLDEST_OPSET} or later"
            return Result(program, False, notes=(note,))
        limit, why = limit_for(context.target)
        chosen, misses = units(program, limit)
        if not chosen:
            return Result(program, False, notes=("no linear layer to quantize", *misses))
        sources = nan_sources(program, context)
        # What another graph of the bundle chose counts: no vector may depend on which of them answers.
        keys = [(repr(self), unit.weights) for unit in chosen]
        known = context.chosen if context.chosen is not None else {}
        statistics: dict[str, int | float | str] = {}
        told: list[str] = []
        if not known.keys() >= set(keys):
            plan, statistics, told = self._measured(program, chosen, limit, sources, context)
            known.update(zip(keys, plan, strict=True))
        taken: list[Precision] = [
            p if p != "float" and context.allow(f"{p} for {unit.name}") else "float"
            for unit, p in zip(chosen, (known[key] for key in keys), strict=True)
        ]
        assign(program, chosen, taken, limit, sources)
        counts = Counter(taken)
        statistics = {p: counts[p] for p in PRECISIONS} | statistics
        return Result(program, counts["float"] < len(taken), statistics, (why, *told, *misses))

    def _measured(
        self,
        program: Program,
        chosen: list[Unit],
        limit: int,
        sources: frozenset[str],
        context: Context,
    ) -> tuple[list[Precision], dict[str, int | float | str], list[str]]:
        """A precision for each unit, the share of the budget that they take, and what to say of them."""
        made = variants(program, chosen, limit, sources)
        if self.budget == "size":
            costs = bytes_of(made, chosen)
        else:
            feed = (context.calibration or probes(program, context.seed))[0]
            costs = seconds(made, chosen, feed, context.threads)
        del made
        measure = {"cosine": by_cosine, "score": by_score, "hessian": by_hessian}[self.by]
        losses = measure(program, chosen, limit, sources, context)
        whole = sum(cost["float"] for cost in costs)
        plan, notes = self._plan(losses, costs, whole)
        spent = sum(cost[p] for cost, p in zip(costs, plan, strict=True))
        told = [*notes, *self._told(chosen, plan, costs, losses)]
        return plan, {f"share of {self.budget}": round(spent / whole, 3)}, told

    def _plan(self, losses: Losses, costs: Costs, whole: float) -> tuple[list[Precision], list[str]]:
        found = allocate(losses, costs, self.limit * whole)
        if found is not None:
            return found, []
        cheapest = [min(cost, key=lambda p: cost[p]) for cost in costs]
        reached = sum(cost[p] for cost, p in zip(costs, cheapest, strict=True)) / whole
        return cheapest, [
            f"the budget cannot be met: the cheapest precisions take {reached:.0%} of float's {self.budget}"
        ]

    def _told(
        self, chosen: Sequence[Unit], plan: Sequence[Precision], costs: Costs, losses: Losses
    ) -> list[str]:
        """A sentence for each unit: what it got, and what every precision would have cost and lost."""
        scale, unit_name = (1e6, "µs") if self.budget == "latency" else (1e-3, "kB")
        lines = []
        for unit, precision, cost, loss in zip(chosen, plan, costs, losses, strict=True):
            options = ", ".join(f"{p} {scale * cost[p]:.0f} {unit_name} loses {loss[p]:.2g}" for p in cost)
            lines.append(f"{unit.name}: {precision} ({options})")
        return lines

"""quantize-dynamic: int8 products with activations quantized at run time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..base import Context, Lossy, Pass, Result
from .hidden_rows import nan_sources
from .rewrite import Rung, write
from .sensitivity import Loss, Plan, choose
from .sites import Site, find, quantized
from .weights import FULL, Range, limit_for

OLDEST_OPSET = 11  # the first with DynamicQuantizeLinear


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Turn linear layers into int8 products, their activations quantized at run time.

    Weights are symmetric int8 with a scale per output feature; activations unsigned int8 with one scale for
    the tensor, measured at run time and shared by every product they enter (q, k and v). Sites that lose too
    much get a scale per token, or stay in float, as sensitivity.py tells. Embedding tables stay in float. A
    table that is also the output head keeps its float copy beside the int8 one.

    min_cosine: mean cosine to keep between the outputs' rows in float and in int8, over calibration feeds
        (probe inputs without any); 0 measures nothing and puts every layer in int8 with one scale.
    weights: "auto" takes 8-bit weights where the target's products cannot saturate, and 7-bit ones where
        they can (weights.py has the arithmetic); "full" and "reduced" insist.
    """

    name: ClassVar[str] = "quantize-dynamic"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    gated: ClassVar[bool] = True

    min_cosine: float = 0.99
    weights: Range = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine is {self.min_cosine:g}, and a cosine to keep is between 0 and 1")

    def run(self, program: Program, context: Context) -> Result:
        if (operator := quantized(program.graph)) is not None:
            return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
        opset = program.graph.graph.opset_imports.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            note = f"opset {opset} has no DynamicQuantizeLinear: convert the model to {OLDEST_OPSET} or later"
            return Result(program, False, notes=(note,))
        limit, why = limit_for(context.target, self.weights)
        sites, misses = find(program, limit)
        if not sites:
            return Result(program, False, notes=("no linear layer to quantize", *misses))
        sources = nan_sources(program, context)
        plan = self._plan(program, limit, sites, sources, context)
        rungs: list[Rung] = [
            rung if rung != "float" and context.allow(f"quantize {site.name}") else "float"
            for site, rung in zip(sites, plan.rungs, strict=True)
        ]
        changed = any(rung != "float" for rung in rungs)
        guarded = write(program, sites, rungs, limit, sources) if changed else 0
        notes = (why, *_costly(sites, plan), *misses)
        return Result(program, changed, _statistics(sites, rungs, limit, plan, len(misses), guarded), notes)

    def _plan(
        self, program: Program, limit: int, sites: list[Site], sources: frozenset[str], context: Context
    ) -> Plan:
        if self.min_cosine == 0:
            everywhere: list[Rung] = ["tensor"] * len(sites)
            return Plan(tuple(everywhere))
        loss, tried = Loss(program, limit, sources, context), 0

        def told(rungs: Sequence[Rung]) -> float:
            nonlocal tried
            tried += 1
            context.progress("measuring what int8 costs", min(tried, len(sites) + 1), len(sites) + 1)
            return loss(rungs)

        return choose(sites, told, 1 - self.min_cosine)


def _costly(sites: list[Site], plan: Plan) -> list[str]:
    """A sentence for each site that the plan leaves in float."""
    return [
        f"{site.name}: stays in float, int8 there alone costs a cosine of {alone:.2g}"
        for site, rung, alone in zip(sites, plan.rungs, plan.alone, strict=bool(plan.alone))
        if rung == "float"
    ]


def _statistics(
    sites: list[Site], rungs: list[Rung], limit: int, plan: Plan, missed: int, guarded: int
) -> dict[str, int | float | str]:
    counts: Counter[Rung] = Counter()
    for site, rung in zip(sites, rungs, strict=True):
        counts[rung] += len(site.products)
    statistics: dict[str, int | float | str] = {
        "products in int8": counts["tensor"] + counts["token"],
        "with a scale per token": counts["token"],
        "left in float": counts["float"] + missed,
        "weight bits": 8 if limit == FULL else 7,
    }
    if guarded:
        statistics["guarded against NaN rows"] = guarded
    if plan.loss is not None:
        statistics["mean cosine"] = round(1 - plan.loss, 5)
    return statistics

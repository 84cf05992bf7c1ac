"""compute-bfloat16: products of linear layers and attentions in bfloat16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...ir.execute import execute
from ...ir.inputs.probe import probes
from ...ir.program import Program
from ..manager.contract import Bounded, Context, Pass, Result
from .bfloat16.layers import Core, Group, find
from .bfloat16.write import write
from .int8.insert import check_cosine
from .int8.rewrite import Rung
from .int8.sensitivity import BFLOAT16, Placement, choose, comparable, distance, some

LACKING = (
    "nothing is computed in bfloat16: ONNX Runtime has no such products on CPUs; build with --backend tvm"
)
UNSEEN = (
    "nothing is computed in bfloat16: no output has a finite row on any input tried, so nothing tells what "
    "that costs; give it real inputs (--data FILE, Context(calibration=feeds))"
)


@dataclass(frozen=True)
class ComputeBfloat16(Pass):
    """Compute linear layers and attentions in bfloat16, with float32 sums.

            y = MatMul(x, w)                                  w: f32
        ->  y = MatMul(Cast(Cast(x, bf16), f32), Cast(w, f32))     w: bf16

    Rows and weights keep 8 bits of each number's significand, and float32's range, so nothing is calibrated.
    The graph says what a processor's own product in bfloat16 computes (Kalamkar et al., 2019,
    arXiv:1905.12322), and TVM's kernels recognise it; elsewhere it runs as floats. An attention multiplies
    rounded queries, keys, probabilities and values; its softmax is computed in float32. What loses too much
    stays in float32. A table that is also the output head keeps its float copy beside the narrow one. ONNX
    Runtime has no such product on CPUs: for it, nothing is rewritten.

    min_cosine: mean cosine to keep between the outputs' rows before and after, over calibration feeds (probe
        inputs without any); 0 measures nothing and takes all.
    products: all of them; or those of linear layers, or of attentions, alone. The latter go with int8 layers,
        and are left as they are where the target has no products of bfloat16.
    """

    name: ClassVar[str] = "compute-bfloat16"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Bounded("cosine", 0.95, "mask")
    varies: ClassVar = {"min_cosine": (0.99, 0.999, 0.9999)}

    min_cosine: float = 0.999
    products: Literal["all", "linear", "attention"] = "all"

    def gated(self) -> bool:
        return True

    def __post_init__(self) -> None:
        check_cosine(self.min_cosine)

    def run(self, program: Program, context: Context) -> Result:
        if context.runtime == "onnxruntime":
            return Result(program, False, notes=(LACKING,))
        target = context.target
        if self.products == "attention" and target is not None and not target.bfloat16:
            return Result(program, False, notes=(f"target '{target.name}' has no products of bfloat16",))
        groups, misses = find(program, self.products)
        if not groups:
            return Result(program, False, notes=("no product to compute in bfloat16", *misses))
        keys = [(repr(self), *key) for key in _keys(groups)]
        plan = self._remembered(keys, context) or self._measured(program, groups, context)
        if plan is None:
            return Result(program, False, notes=(UNSEEN, *misses))
        if context.chosen is not None:
            context.chosen.update(zip(keys, plan.rungs, strict=True))
        taken = [
            group
            for group, rung in zip(groups, plan.rungs, strict=True)
            if rung != "float" and context.allow(f"compute {group.name} in bfloat16")
        ]
        if taken:
            write(program, taken)
        costly = plan.costly([group.name for group in groups], "bfloat16")
        return Result(program, bool(taken), _statistics(groups, taken, plan), (*costly, *misses))

    @staticmethod
    def _remembered(keys: Sequence[Any], context: Context) -> Placement | None:
        """What another graph of the bundle chose: no vector may depend on which of them answers."""
        chosen: Mapping[Any, Rung] = context.chosen or {}
        return Placement(tuple(chosen[key] for key in keys)) if chosen.keys() >= set(keys) else None

    def _measured(
        self, program: Program, groups: Sequence[Group | Core], context: Context
    ) -> Placement | None:
        """Which groups lose little enough; None where nothing tells what they lose."""
        if not self.min_cosine:
            return Placement((BFLOAT16[0],) * len(groups))
        feeds = some(context.calibration or probes(program, context.seed))
        expected = execute(program, feeds, context.threads)
        if not comparable(program, feeds, expected):
            return None
        tried = 0

        def loss(rungs: Sequence[Rung]) -> float:
            nonlocal tried
            tried += 1
            total = len(groups) + 1
            context.progress("measuring what bfloat16 costs", min(tried, total), total)
            variant = program.clone()
            again, _ = find(variant, self.products)
            write(variant, [g for g, rung in zip(again, rungs, strict=True) if rung != "float"])
            return distance(program, feeds, expected, execute(variant, feeds, context.threads))

        return choose([False] * len(groups), loss, 1 - self.min_cosine, BFLOAT16)


def _keys(groups: Sequence[Group | Core]) -> list[tuple[Any, ...]]:
    """What names a group in every graph of a program: its weights, and which of their uses it is."""
    uses: Counter[tuple[str, ...]] = Counter()
    keys = []
    for group in groups:
        uses[group.key] += 1
        keys.append((group.key, uses[group.key]))
    return keys


def _statistics(
    groups: Sequence[Group | Core], taken: Sequence[Group | Core], plan: Placement
) -> dict[str, int | float | str]:
    count, of = (sum(len(group.products) for group in some) for some in (taken, groups))
    statistics: dict[str, int | float | str] = {"products in bfloat16": f"{count} of {of}"}
    if plan.loss is not None:
        statistics["mean cosine"] = round(1 - plan.loss, 6)
    return statistics

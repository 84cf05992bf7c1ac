"""mixture-of-experts: feed-forwards as experts, of which a router chooses some for each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from .experts.plans import Plan

NONE = "none with weights of its own was found"
_LITTLE = 0.9  # of the energy: with less, a note says what helps


@dataclass(frozen=True)
class MixtureOfExperts(Pass):
    """Split feed-forwards into experts and compute a few of them for each token (MoEfication).

            y = linear(relu(linear(x, up[3072,768])), down[768,3072])
        ->  chosen = topk(linear(x, router[16,768]), 4); tokens, ends = tokens of each expert in turn
            y = sum over the chosen of grouped_mm(relu(grouped_mm(x[tokens], ups[16,768,192], ends)), ...)

    Zhang et al., 2021, arXiv:2110.01786. Nothing is trained. Neurons that are active for the same tokens
    become one expert, all of one size: balanced k-means on the co-activation graph, where neurons count by
    how far they move the output. The router is a linear prediction, by ridge regression in float64, of how
    far each expert moves it. An expert that is not chosen gives what it gives there on average, which costs
    nothing. With all experts chosen the model computes what it did. Without texts, neurons that look for the
    same are one expert, scored by how alike the input is to their mean (parameter clustering and similarity
    selection there).

    Experts are not scaled by their scores, so `distill` trains those that are chosen and leaves the router as
    it is. ONNX files compute the chosen ones alone: tokens are sorted by expert, and each expert multiplies
    its slice. That gathers and adds up `top` rows a token, so few experts of many neurons are faster than
    many of few: measure. What a token is given depends on it alone, but scores that are equal up to rounding
    may be ordered otherwise on another machine. TVM has no such products. Other passes on feed-forwards
    (prune-ffn, tie-layers, factorise-linear, grouped-linear) belong before this one.

    GELU and SiLU leave fewer neurons silent than ReLU, and a choice keeps less of them: where notes say that
    it is little, replace-activation and distill first.

    experts: to each feed-forward; those whose neurons it doesn't divide stay.
    top: experts for each token; a quarter of them where neither this nor energy is given.
    energy: the share of the output's energy (squared, about its mean) that each layer keeps at least on rows
        held out of the texts; as many experts as that takes.
    tokens: of text, at most.
    """

    name: ClassVar[str] = "mixture-of-experts"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    experts: int = 16
    top: int | None = None
    energy: float | None = None
    tokens: int = 8192

    def __post_init__(self) -> None:
        if self.experts < 2:
            raise ValueError(f"experts is {self.experts}, and a feed-forward is split into 2 or more")
        if self.top is not None and self.energy is not None:
            raise ValueError("top and energy both say how many experts are computed: give one of them")
        if self.top is not None and not 1 <= self.top <= self.experts:
            raise ValueError(
                f"top is {self.top}, and of {self.experts} experts 1 to {self.experts} can be chosen"
            )
        if self.energy is not None and not 0 < self.energy < 1:
            raise ValueError(f"energy is {self.energy:g}, and the share that is kept is above 0 and below 1")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")

    def requires(self) -> tuple[str, ...]:
        return () if self.energy is None else ("calibration",)

    def traces(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import propagate, prune
        from ..common.fx_weights import quantized, sound
        from ..share.groups.sites import sites
        from .experts.plans import plans
        from .experts.report import notes_on, statistics
        from .experts.unfit import unfit
        from .experts.write import Writer

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): split it into experts before")
        found, notes = sites(program, "ffn")
        reasons = {site.name: unfit(site, self.experts) for site in found}
        notes = list(
            dict.fromkeys([*notes, *(f"{name} stays, {why}" for name, why in reasons.items() if why)])
        )
        fit = [site for site in found if not reasons[site.name]]
        if not fit:
            raise PassError(f"there is no feed-forward to split: {notes[0] if notes else NONE}")
        for matrix in (matrix for site in fit for matrix, _ in site.products):
            sound(matrix)
        given = context.training or context.calibration
        feeds = batches(program, given, self.tokens, context.seed) if given else []
        writer, done = Writer(program.graph), []
        made = []
        for number, plan in enumerate(plans(program, fit, feeds, self.experts)):
            context.progress("splitting into experts", number, len(fit))
            made.append(plan)
        for site, plan in zip(fit, made, strict=True):
            top = self._top(plan)
            if context.allow(f"split {site.name} into {self.experts} experts"):
                writer.feed_forward(site, plan, top)
                done.append((site, plan, top))
        if done:
            prune(program.graph)
            propagate(program.graph)
            program.graph.recompile()
        notes += notes_on(done, _LITTLE)
        return Result(program, bool(done), statistics(done, len(found)), tuple(notes))

    def _top(self, plan: Plan) -> int:
        if self.energy is None or plan.kept is None:
            return self.top or max(1, self.experts // 4)
        enough = [count for count, kept in enumerate(plan.kept, 1) if kept >= self.energy]
        return enough[0] if enough else self.experts

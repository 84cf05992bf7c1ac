"""nonorm: norms become element-wise affine maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.blocks import recognise
from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.view import view
from ..common.batches import batches
from ..common.calibration import held_out
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from ...ir.blocks.base import Norm
    from .norms.calibrated import Fitted


@dataclass(frozen=True)
class Nonorm(Pass):
    """Replace LayerNorm and RMSNorm by NoNorm (MobileBERT: Sun et al., 2020, arXiv:2004.02984, section 3.3).

            y = layer_norm(x, weight, bias)
        ->  y = x * gamma + beta

    A norm needs the mean and the variance of each token before anything else can go on; an affine map by
    feature needs neither. gamma and beta are of this graph's own: norms that share their weights (ALBERT) get
    a map each. Outputs move: recover with `distill`, or let it mix the norms out (`distill{anneal=...}`
    after this pass). `fold-affine` then moves maps into weights.

    layers: which norms, by number from 0 in the order of the graph, as notes number them; none are all of
        them. NoNorms count too, so numbers stay when norms are gone.
    init: "fit" is, feature by feature, least squares towards what the norm gives on the calibration data,
        given what the maps before it make of the input; "weights" keeps the norm's own scale and shift, which
        is nearest to it only where tokens have a variance of 1: a start for training.
    limit: norms whose map gives activations so many times larger, or smaller, than the norm does stay norms,
        and are named with the ratio: of the root mean square over held-out rows, and over the largest row.
        Without calibration data (init=weights) nothing can be told and all are replaced.
    tokens: of calibration data, at most.
    """

    name: ClassVar[str] = "nonorm"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    layers: tuple[int, ...] = ()
    init: Literal["fit", "weights"] = "fit"
    limit: float = 4.0
    tokens: int = 65536

    def __post_init__(self) -> None:
        if len(set(self.layers)) < len(self.layers) or min(self.layers, default=0) < 0:
            raise ValueError(f"layers is {self.layers}, and each is a number from 0, given once")
        if not self.limit > 1:
            raise ValueError(f"limit is {self.limit:g}, and a ratio of sizes is held below more than 1")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and least squares takes at least one")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.init == "fit" else ()

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.evaluated import evaluated
        from ...ir.fx.graph import prune
        from .norms.affine import replace

        live = evaluated(program)
        blocks = recognise(view(live))
        chosen, notes = self._chosen(blocks.norm)
        notes += [f"{miss.node}: {miss.reason}" for miss in blocks.missed if miss.kind == "norm"]
        if not chosen:
            raise PassError(f"no norm to replace: {notes[0] if notes else 'none was found'}")
        numbers = {norm.root.name: number for number, norm in enumerate(blocks.norm)}
        replaced = []
        for one in self._maps(live, chosen, context):
            name = f"norm {numbers[one.norm.root.name]} ({one.norm.root.name})"
            if one.reason:
                notes.append(f"{name} stays: {one.reason}")
            elif context.allow(f"replace {name} by an affine map"):
                replace(program, one.norm, one.gamma, one.beta)
                replaced.append(one)
        if replaced:
            prune(program.graph)
        count = f"{len(replaced)} of {len(blocks.norm)}"
        statistics: dict[str, int | float | str] = {"norms replaced": count}
        if context.calibration and replaced:
            for what in ("error", "scale", "largest"):
                each = (f"{numbers[one.norm.root.name]}: {getattr(one, what):.2g}" for one in replaced)
                statistics[f"{what} by norm"] = " ".join(each)
        elif replaced:
            notes.append("no calibration data was given, so nobody knows how far activations grow")
        return Result(program, bool(replaced), statistics, tuple(notes))

    def _chosen(self, norms: Sequence[Norm]) -> tuple[list[Norm], list[str]]:
        """Norms to replace, and a sentence for each of those asked for that cannot be.

        Raises:
            PassError: a number that no norm has.
        """
        from .norms.affine import unfit

        if max(self.layers, default=-1) >= len(norms):
            there = f"has norms 0 to {len(norms) - 1}" if norms else "has no norm"
            raise PassError(f"there is no norm {max(self.layers)}: the model {there}")
        chosen, notes = [], []
        for number in sorted(self.layers) or range(len(norms)):
            reason = unfit(norms[number])
            if reason:
                notes.append(f"norm {number} ({norms[number].root.name}) stays: {reason}")
            else:
                chosen.append(norms[number])
        return chosen, notes

    def _maps(self, program: Program, norms: Sequence[Norm], context: Context) -> list[Fitted]:
        from .norms.affine import own
        from .norms.calibrated import Fitted, fitted

        if not context.calibration:
            return [Fitted(norm, *own(norm)) for norm in norms]
        given = [own(norm) if self.init == "weights" else None for norm in norms]
        kept, held = held_out(program, context.calibration)
        feeds = [batches(program, each, self.tokens, context.seed) if each else [] for each in (kept, held)]
        return fitted(program, norms, given, (feeds[0], feeds[1]), self.limit, context)

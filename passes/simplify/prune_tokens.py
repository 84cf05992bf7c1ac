"""prune-tokens: tokens that nobody attends to are not carried through the layers that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between

if TYPE_CHECKING:
    from .tokens.sites import Site, Tokens

LATENCY = 0.5  # where nothing is asked for
SHORT = 0.95  # of the goal is still what was asked for, as far as a clock can tell


@dataclass(frozen=True)
class PruneTokens(Pass):
    """Let tokens that receive little attention end behind it; later layers run on those that are left.

            h = layer_norm(x + attention(x)); y = h + ffn(h)                       h: f32[batch,length,d]
        ->  i = sort(sort(score).indices[:, :K]); g = h[i]; y = g + ffn(g)         g: f32[batch,K,d]

    PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950, section 3), for any recognised encoder with its own
    stream of tokens. Between an attention and the feed-forward behind it tokens are ranked, the best stay in
    the order of the text, and whatever later layers read of tokens goes with them: masks, position biases,
    rotary tables, the mask of a pooling. Of a text with n tokens, n times a share rounded up stay, whatever
    it is padded to: padding ranks last and places without a token are masked from then on, so that a text's
    vector does not depend on its batch. The first token of a text always stays.

    Refused, by name: outputs with a place for every token (token labels, hidden states, language models);
    models that look back only; decoders that read the tokens; poolings that count padding or read another
    place than the first. Outputs move: recover with `distill`.

    keep: the share of a text's tokens, to a thousandth, that stays behind each of `layers`, ever less.
    layers: behind the attention of which, by number from 0; where none are named, of the first and those
        that follow it, one for each of `keep`.
    latency: the share of its time that a call takes at most; 0.5 where no keep is given. The schedule is then
        the one that loses least at the outputs: what a share behind each layer loses alone is measured on
        texts, what tokens cost on the clock, and what is chosen is built, timed, and chosen anew where it is
        too slow. Needs texts and something to measure.
    workload: the name of the call that latency is of; the first of the run's where none is named.
    score: "received" is the attention that a token receives, summed over heads and the tokens of its text
        (the paper's); "first" is what the first token pays it, as in EViT (Liang et al., 2022,
        arXiv:2202.07800, section 3.2): one row of scores instead of all.
    choices: shares that are tried behind each layer for a latency.
    tokens: of texts that losses are measured on, at most.
    """

    name: ClassVar[str] = "prune-tokens"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"latency": Between(0.4, 0.9)}

    keep: tuple[float, ...] = ()
    layers: tuple[int, ...] = ()
    latency: float | None = None
    workload: str = ""
    score: Literal["received", "first"] = "received"
    choices: int = 6
    tokens: int = 8192

    def __post_init__(self) -> None:
        if self.keep and self.latency is not None:
            raise ValueError("keep and latency both say how many tokens stay: give one of them")
        if any(not 0.001 <= share <= 1 for share in self.keep) or list(self.keep) != sorted(
            self.keep, reverse=True
        ):
            raise ValueError(f"keep is {self.keep}, and shares are from 0.001 to 1, ever fewer")
        if self.layers and (
            len(self.layers) != len(self.keep) or list(self.layers) != sorted(set(self.layers))
        ):
            raise ValueError(f"layers is {self.layers}: give ascending numbers, one for each of keep")
        if min(self.layers, default=0) < 0:
            raise ValueError(f"layers is {self.layers}, and layers count from 0")
        if self.latency is not None and not 0 < self.latency < 1:
            raise ValueError(f"latency is {self.latency:g}, and the share of the time is above 0 and below 1")
        if self.keep and self.workload:
            raise ValueError(f"workload is {self.workload}, and says what a latency is of, not keep")
        if self.choices < 1 or self.tokens < 1:
            raise ValueError(f"choices and tokens are {self.choices} and {self.tokens}, and 1 at least")

    def traces(self) -> bool:
        return True

    def requires(self) -> tuple[str, ...]:
        return () if self.keep else ("calibration", "measure")

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.blocks import recognise
        from ...ir.view import view
        from .tokens.shifted import Shifted
        from .tokens.sites import check, tokens

        seen = view(program)
        found = tokens(program, seen, recognise(seen))
        missed, measured = "", 0.0
        latency = self.latency or LATENCY
        if self.keep:
            schedule = self._given(found)
            check(program, found, [site.cut for site in schedule])
        else:
            check(program, found, [site.cut for site in found.sites])
            thousandths, measured = self._timed(program, found, 1 / latency, context)
            schedule = {site: thousandths[site.number] for site in found.sites if site.number in thousandths}
            if measured * latency < SHORT:
                missed = (
                    f"a call was to take {latency:g} of its time, and the best that was found takes "
                    f"{1 / measured:.2f}, and that is what is kept"
                )
        schedule = {
            site: share
            for site, share in schedule.items()
            if context.allow(f"keep {share / 1000:g} of the tokens behind layer {site.number}")
        }
        if not schedule:
            return Result(program, False, notes=("no layer does with fewer tokens",), missed=missed)
        Shifted(program, found, schedule, self.score).run()
        return Result(program, True, _statistics(found, schedule, measured), missed=missed)

    def _given(self, found: Tokens) -> dict[Site, int]:
        """Thousandths that stay, by site.

        Raises:
            PassError: a layer that there is not.
        """
        sites = {site.number: site for site in found.sites}
        numbers = self.layers or tuple(range(len(self.keep)))
        for number in numbers:
            if number not in sites:
                there = f"layers {min(sites)} to {max(sites)}" if len(sites) > 1 else f"layer {min(sites)}"
                why = found.reasons.get(number, f"tokens can go behind {there}")
                raise PassError(f"no token can go behind layer {number}: {why}")
        shares = [max(1, round(1000 * share)) for share in self.keep]
        chosen = zip(numbers, shares, [1000, *shares], strict=False)
        return {sites[number]: share for number, share, above in chosen if share < above}

    def _timed(
        self, program: Program, found: Tokens, speedup: float, context: Context
    ) -> tuple[Mapping[int, int], float]:
        """Thousandths by layer, and the speed-up measured with them: one choice for all graphs."""
        from .tokens.schedule import Search

        chosen = {} if context.chosen is None else context.chosen
        key = (str(self), *(site.cut.name for site in found.sites))
        if key not in chosen:
            feeds = batches(program, context.calibration, self.tokens, context.seed)
            search = Search(program, feeds, context, self.workload, self.choices, self.score)
            chosen[key] = search.planned(speedup)
        return chosen[key]


def _statistics(found: Tokens, schedule: Mapping[Site, int], measured: float) -> dict[str, int | float | str]:
    shares: Sequence[str] = [f"{share / 1000:g} from layer {site.number}" for site, share in schedule.items()]
    told: dict[str, int | float | str] = {"tokens kept": ", ".join(shares)}
    if measured:
        told["speed-up measured"] = round(measured, 3)
    return told

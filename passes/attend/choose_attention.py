"""choose-attention: the kind of attention of each layer, by what it loses and what it saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError, PipelineError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between

if TYPE_CHECKING:
    from .parts.by_layer import ByLayer, Choice
    from .parts.kind import Kind

SHORT = 0.95  # of the goal is still what was asked for, as far as a clock can tell


@dataclass(frozen=True)
class ChooseAttention(Pass):
    """Choose full or another attention for each layer, so that a call is as fast as asked and loses least.

            y0 = softmax(q k^T + mask) v; y1 = softmax(q k^T + mask) v
        ->  y0 = softmax(q k^T + where(|i - j| <= 64, mask, -3.4e38)) v; y1 = softmax(q k^T + mask) v

    What a layer loses with each kind is measured at the outputs, on texts, with that layer alone substituted;
    what it saves is measured on the clock at the length of the call, with all layers that take the kind. Both
    are taken to add up, the least loss for the time is an integer program, and what is chosen is built, timed
    and chosen anew where it is too slow (as `prune-to-latency` does). Where no kind pays at that length, full
    attention stays, and the note says so. Patterns of keys are timed as `block-attention` makes them, so let
    it follow. Give texts as long as those that will come: a window loses nothing of a text that it holds.

    kinds: what may stand in a layer's place, each a name, or `substitute-attention`'s options as a text:
        kinds=(linear,"kind=window,window=64").
    latency: the share of its time that a call takes at most. workload: the name of the call that it is of;
        the first of the run's where none is named.
    tokens: of texts that starts and losses are measured on, at most. seed: of what is drawn.
    """

    name: ClassVar[str] = "choose-attention"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"latency": Between(0.3, 0.9)}

    kinds: tuple[str, ...] = ("window", "linear")
    latency: float = 0.5
    workload: str = ""
    tokens: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.latency < 1:
            raise ValueError(f"latency is {self.latency:g}, and the share of the time is above 0 and below 1")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds is {self.kinds}, and one or more are named, each once")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")
        self._made()

    def _made(self) -> list[Kind]:
        from ..manager.text import parse
        from .substitute_attention import SubstituteAttention

        made = []
        for text in self.kinds:
            options = text if "=" in text else f"kind={text}"
            try:
                (one,) = parse(f"substitute-attention{{{options}}}")
            except (PipelineError, ValueError) as error:
                raise ValueError(f"kinds names {text!r}: {error}") from error
            assert isinstance(one, SubstituteAttention)
            if one.layers:
                raise ValueError(f"kinds names {text!r}, and layers are what is chosen")
            made.append(one.made())
        return made

    def traces(self) -> bool:
        return True

    def requires(self) -> tuple[str, ...]:
        return ("calibration", "measure")

    def run(self, program: Program, context: Context) -> Result:
        from .parts.by_layer import ByLayer

        texts = context.training or context.calibration
        feeds = batches(program, texts, self.tokens, context.seed)
        kinds = dict(zip(self.kinds, self._made(), strict=True))
        search = ByLayer(program, kinds, feeds, context, self.seed, _in_blocks)
        if not search.sites:
            raise PassError(f"no attention can be {' or '.join(self.kinds)}: {search.notes[0]}")
        choice = self._chosen(search, context)
        found = {
            number: kind
            for number, kind in choice.kinds.items()
            if context.allow(f"{kind} in place of {search.sites[number].name}")
        }
        missed = ""
        if choice.speedup * self.latency < SHORT:
            best = f"the best that was found takes {1 / choice.speedup:.2f}" if found else "no kind is faster"
            missed = f"a call was to take {self.latency:g} of its time, and {best}"
        told: dict[str, int | float | str] = {
            "attentions substituted": f"{len(found)} of {search.count}",
            "speed-up measured": round(choice.speedup, 3),
        }
        if found:
            told["chosen"] = ", ".join(f"{number} {kind}" for number, kind in sorted(found.items()))
            search.write(program, found)
        return Result(program, bool(found), told, (*search.notes, *search.said()), missed=missed)

    def _chosen(self, search: ByLayer, context: Context) -> Choice:
        """One choice for all graphs of a bundle."""
        chosen = {} if context.chosen is None else context.chosen
        key = (str(self), *(site.name for site in search.sites.values()))
        if key not in chosen:
            chosen[key] = search.planned(1 / self.latency, self.workload)
        return chosen[key]


def _in_blocks(program: Program) -> None:
    """As patterns of keys will run."""
    from .block_attention import BlockAttention

    try:
        BlockAttention().run(program, Context())
    except PassError:  # every attention is of another kind
        return

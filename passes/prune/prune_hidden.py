"""prune-hidden: a narrower residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result
from .importance.choose import FREE, Method, lowest, rounded


@dataclass(frozen=True)
class PruneHidden(Pass):
    """Remove channels of the residual stream: the hidden size itself.

            h = embedding(table[30522,768], ids); y = linear(h, w[3072,768])
        ->  h = embedding(table[30522,512], ids); y = linear(h, w[3072,512])

    What is left is the model at the smaller size: norms divide by fewer numbers, so even a channel that is
    always zero is missed; recover with distill. Heads and feed-forwards keep their sizes. An output that is
    the stream itself keeps its shape: a matrix behind it puts zeros where channels are gone, and learns.

    ratio: how many channels go, in [0, 1), of each stream (MobileBERT has several).
    importance: what tells which: magnitude of all weights of a channel; taylor, fisher or fisher-block, by a
        mask over what norms give; activation, its mean square there; or random.
    multiple: the width that is left is a multiple of this, for the sake of vector units; fewer go then.
    """

    name: ClassVar[str] = "prune-hidden"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    ratio: float = 0.25
    importance: Method = "fisher"
    multiple: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(
                f"ratio is {self.ratio:g}, and the share of channels that goes is at least 0 and below 1"
            )
        if self.multiple < 1:
            raise ValueError(f"multiple is {self.multiple}, and a width is a multiple of 1 or more")

    def requires(self) -> tuple[str, ...]:
        return () if self.importance in FREE else ("calibration",)

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import prune
        from .importance.width import scores
        from .surgery.cut import cut_groups
        from .surgery.width import restore, widths

        work = program.clone()
        restore(work)
        found, notes = widths(work)
        if not found:
            raise PassError(f"no residual width to prune: {notes[0] if notes else 'no residual was found'}")
        weighed = scores(work, found, self.importance, context)
        chosen = lowest(weighed, self.ratio, "layer")
        left, going = [], []
        for one, each, cheapest in zip(found, weighed, chosen, strict=True):
            gone = rounded(cheapest, each, self.multiple)
            if gone and context.allow(f"remove {len(gone)} of {len(each)} channels"):
                going += one.going(gone)
                left.append(len(each) - len(gone))
            else:
                left.append(len(each))
        statistics: dict[str, int | float | str] = {
            "hidden size before": " ".join(str(len(each)) for each in weighed),
            "hidden size": " ".join(map(str, left)),
        }
        if not going:
            if self.ratio:
                notes.append(
                    f"no width below is a multiple of {self.multiple}: give a larger ratio, or multiple="
                )
            return Result(program, False, statistics, tuple(notes))
        cut_groups(work.graph, going)
        prune(work.graph)
        return Result(work, True, statistics, tuple(notes))

"""What prune-heads and prune-ffn have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..base import Context, Lossy, Pass, Result
from .choose import FREE, Method, Scope

if TYPE_CHECKING:
    from .units import Units


@dataclass(frozen=True)
class PruneUnits(Pass):
    """Remove a share of the units of one kind.

    ratio: how much of them goes, in [0, 1).
    importance: what tells which (importance.py).
    scope: "model" compares all layers' units, so that layers end up unequal and may lose all; "layer" takes
        the same share of each.
    """

    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    kind: ClassVar[str]
    block: ClassVar[str]
    word: ClassVar[str]

    ratio: float = 0.25
    importance: Method = "fisher"
    scope: Scope = "model"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(
                f"ratio is {self.ratio:g}, and the share of {self.word} that goes is at least 0 and below 1"
            )

    @property
    def requires(self) -> tuple[str, ...]:
        return () if self.importance in FREE else ("calibration",)

    def run(self, program: Program, context: Context) -> Result:
        from .choose import lowest, rounded
        from .importance import scores
        from .separate import rejoin, separate
        from .surgery import remove
        from .units import survey

        work = program.clone()
        if self.kind == "heads":
            separate(work)
        found, missed = survey(work)
        found = [one for one in found if one.kind == self.kind]
        notes = [f"{miss.node}: {miss.reason}" for miss in missed if miss.kind == self.block]
        if not found:
            raise PassError(f"no {self.word} to remove: {notes[0] if notes else 'no such block was found'}")
        weighed = scores(work, found, self.importance, context)
        chosen = lowest(weighed, self.ratio, self.scope)
        going = {
            one: indices
            for one, each, cheapest in zip(found, weighed, chosen, strict=True)
            if (indices := rounded(cheapest, each, self.step(one)))
            and context.allow(f"remove {len(indices)} of {one.size} {self.word} before {one.output.root}")
        }
        statistics = self._statistics(found, going)
        if not going:
            return Result(program, False, statistics, tuple(notes))
        remove(work, going)
        rejoin(work)
        return Result(work, True, statistics, tuple(notes))

    def step(self, units: Units) -> int:
        """What the number of units left is a multiple of."""
        return 1

    def _statistics(
        self, found: Sequence[Units], going: dict[Units, list[int]]
    ) -> dict[str, int | float | str]:
        left = [one.size - len(going.get(one, ())) for one in found]
        return {
            f"{self.word} removed": sum(map(len, going.values())),
            f"{self.word} before": sum(one.size for one in found),
            f"{self.word} left by layer": " ".join(map(str, left)),
        }

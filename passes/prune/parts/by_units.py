"""What prune-heads and prune-ffn have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ....ir.errors import PassError
from ....ir.program import Program
from ...manager.contract import Context, Lossy, Pass, Result
from ..importance.choose import FREE, MOVEMENT, Method, Scope, lowest, rounded

if TYPE_CHECKING:
    import numpy as np

    from ..surgery.units import Units

Importance = Literal[Method, "movement", "movement-soft"]


@dataclass(frozen=True)
class PruneUnits(Pass):
    """Remove a share of the units of one kind.

    ratio: how much of them goes, in [0, 1).
    importance: what tells which (importance.py).
    scope: "model" compares all layers' units, so that layers end up unequal and may lose all; "layer" takes
        the same share of each.
    steps, rate: of movement's training; the others don't train.
    """

    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    kind: ClassVar[str]
    block: ClassVar[str]
    word: ClassVar[str]

    ratio: float = 0.25
    importance: Importance = "fisher"
    scope: Scope = "model"
    steps: int = 500
    rate: float = 3e-5

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(
                f"ratio is {self.ratio:g}, and the share of {self.word} that goes is at least 0 and below 1"
            )

        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, and movement takes at least one")
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate:g}, and nothing moves unless it is above 0")

    def requires(self) -> tuple[str, ...]:
        if self.importance in FREE:
            return ()
        return ("original", "calibration") if self.importance in MOVEMENT else ("calibration",)

    def run(self, program: Program, context: Context) -> Result:
        from ..surgery.cut import remove
        from ..surgery.separate import rejoin, separate
        from ..surgery.units import survey

        work = program.clone()
        if self.kind == "heads":
            separate(work)
        found, missed = survey(work)
        found = [one for one in found if one.kind == self.kind]
        notes = [f"{miss.node}: {miss.reason}" for miss in missed if miss.kind == self.block]
        if not found:
            raise PassError(f"no {self.word} to remove: {notes[0] if notes else 'no such block was found'}")
        weighed = self._weighed(work, found, context)
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

    def _weighed(self, work: Program, found: Sequence[Units], context: Context) -> list[np.ndarray]:
        """Scores; with movement the program's weights are trained, too."""
        if self.importance == "movement" or self.importance == "movement-soft":
            from ..importance.movement import movement

            soft = self.importance == "movement-soft"
            return movement(work, found, self.ratio, self.scope, soft, self.steps, self.rate, context)
        from ..importance.scores import scores

        return scores(work, found, self.importance, context)

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

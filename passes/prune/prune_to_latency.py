"""prune-to-latency: the best structure for the milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between
from .importance.choose import Method

if TYPE_CHECKING:
    from .surgery.units import Units
    from .timing.built import Built
    from .timing.search import Search

SHORT = 0.95  # of the goal is still what was asked for, as far as a clock can tell


@dataclass(frozen=True)
class PruneToLatency(Pass):
    """Remove attention heads and feed-forward neurons until a call is so many times as fast, measured.

            12 blocks of 12 heads and 3072 neurons
        ->  fewer of each, block by block, so that a call takes 1 / speedup of its time

    The latency of each kind of block at each number of units is measured on the target once (latency.py);
    what each block loses with so many units is measured at the outputs (losses.py); an integer program finds
    the least loss that meets the time, and what comes out is built and timed. Where it is too slow, or faster
    than asked, the budget is corrected and the search goes on. Then the output projections are refitted by
    least squares on the calibration texts, layer after layer (refit.py), and the result is timed again; it is
    built anew, smaller, where that is short of the speed-up. A block may lose all its units.

    speedup: over the program as it is, above 1.
    workload: the name of the measured call that is meant; the first of the run's where none is named.
    method: which units go first: zip (structured optimal brain surgeon: Kurtic et al., 2023,
        arXiv:2302.04089) or an importance (fisher: Kwon et al., 2022, arXiv:2204.09656).
    refit: weights of the output projections, masks (a factor for each of their inputs), or none.
    choices: how many numbers of units between none and all are timed for each kind of block.
    tokens: of text, at most, for losses and refitting.
    damping: of the least squares, times the mean of the diagonal of X^T X.
    """

    name: ClassVar[str] = "prune-to-latency"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"speedup": Between(1.2, 6.0, log=True)}

    speedup: float = 1.5
    workload: str = ""
    method: Literal["zip"] | Method = "zip"
    refit: Literal["weights", "masks"] | None = "weights"
    choices: int = 6
    tokens: int = 20_000
    damping: float = 0.01

    def traces(self) -> bool:
        return True

    def requires(self) -> tuple[str, ...]:
        return ("calibration", "measure")

    def __post_init__(self) -> None:
        if not self.speedup > 1:
            raise ValueError(
                f"speedup is {self.speedup:g}, and the program is to become faster: give a number above 1"
            )
        if self.damping <= 0:
            raise ValueError(f"damping is {self.damping:g}, and least squares need it above 0")
        for name in ("choices", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and at least one is needed")

    def run(self, program: Program, context: Context) -> Result:
        from .surgery.separate import separate
        from .surgery.units import survey
        from .timing.built import built
        from .timing.search import Search

        given = context.training or context.calibration
        feeds = batches(program, given, self.tokens, context.seed)
        work = program.clone()
        separate(work)
        units, missed = survey(work)
        notes = [f"{miss.node}: {miss.reason}" for miss in missed]
        if not units:
            raise PassError(f"there is nothing to remove: {notes[0] if notes else 'no block was recognised'}")
        search = Search(
            work,
            units,
            feeds,
            context,
            method=self.method,
            workload=self.workload,
            choices=self.choices,
            damping=self.damping,
        )
        found = built(
            search,
            work,
            program,
            feeds,
            context,
            speedup=self.speedup,
            refitted=self.refit,
            damping=self.damping,
        )
        missed_goal = ""
        if found.speedup < self.speedup * SHORT:
            missed_goal = (
                f"no structure was found that is {self.speedup:g} times as fast: the best measures "
                f"{found.speedup:.2f}, and that is what is kept"
            )
        notes = [*self._lines(units, found), *notes, *found.notes]
        statistics = self._statistics(units, search, found)
        return Result(found.program, bool(found.going), statistics, tuple(notes), missed=missed_goal)

    def _statistics(self, units: list[Units], search: Search, found: Built) -> dict[str, int | float | str]:
        shown: dict[str, int | float | str] = {"speed-up measured": round(found.speedup, 3)}
        for kind, word in (("heads", "heads"), ("width", "neurons")):
            mine = [one for one in units if one.kind == kind]
            shown[f"{word} removed"] = sum(len(found.going.get(one, ())) for one in mine)
            shown[f"{word} before"] = sum(one.size for one in mine)
        shown["structures timed"] = len(search.tried)
        shown["latency table"] = "measured" if search.measured else "known"
        if found.errors:
            pairs = found.errors.values()
            before, after = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
            shown |= {"error before refitting": round(before, 4), "after": round(after, 4)}
        return shown

    def _lines(self, units: list[Units], found: Built) -> list[str]:
        kept = [f"{one.size - len(found.going.get(one, ()))} of {one.size} {one.kind}" for one in units]
        layers: dict[int, list[str]] = {}
        for one, line in zip(units, kept, strict=True):
            layers.setdefault(one.layer, []).append(line)
        return [f"layer {layer + 1} keeps {', '.join(lines)}" for layer, lines in layers.items()]

"""prune-structure: so many heads and neurons in each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Each, Varying

if TYPE_CHECKING:
    from .surgery.units import Units

CHOICES = 4  # numbers of units between none and all that a search tries of each block


@dataclass(frozen=True)
class PruneStructure(Pass):
    """Keep a given number of heads and of neurons in each block, the ones that are missed most.

            12 blocks of 12 heads and 3072 neurons
        ->  blocks of 12, 1536, 9, 2304, 4, 768, ... of them

    The elastic space of HAT (Wang et al., 2020, arXiv:2005.14187): heads and widths of every layer by
    themselves, and depth, since a block may lose all its units. There, weights are inherited from a SuperNet
    that was trained for it; here, from the program, cut as the structured optimal brain surgeon cuts (ZipLM:
    Kurtic et al., 2023, arXiv:2302.04089), with output projections refitted by least squares. Layers with
    the same weights are one block.

    keep: of each block, in the order of the graph: heads (those of keys and values, where queries share
        them) and neurons in turn, where all blocks were recognised.
    refit: weights of the output projections, masks (a factor for each of their inputs), or none.
    tokens: of text, at most, for the order and the refitting.
    damping: of the least squares, times the mean of the diagonal of X^T X.
    """

    name: ClassVar[str] = "prune-structure"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    keep: tuple[int, ...] = ()
    refit: Literal["weights", "masks"] | None = "weights"
    tokens: int = 20_000
    damping: float = 0.01

    @classmethod
    def varying(cls, program: Program) -> Varying:
        """Of each block, a few numbers from none to all."""
        from .timing.latency import grid

        found = blocks(program)[1] if program.dialect == "fx" else []
        return {"keep": Each(tuple(tuple(grid(one.size, CHOICES)) for one in found))} if found else {}

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def __post_init__(self) -> None:
        if min(self.keep, default=0) < 0:
            raise ValueError(f"keep is {self.keep}, and says of each block how many units stay, from 0 on")
        if self.damping <= 0:
            raise ValueError(f"damping is {self.damping:g}, and least squares need it above 0")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")

    def run(self, program: Program, context: Context) -> Result:
        from .refit.losses import losses
        from .refit.refit import refit
        from .surgery.cut import remove
        from .surgery.separate import rejoin, separate
        from .surgery.units import survey

        work = program.clone()
        separate(work)
        found, missed = survey(work)
        notes = [f"{miss.node}: {miss.reason}" for miss in missed]
        self._check(found, notes)
        given = context.training or context.calibration
        feeds = batches(program, given, self.tokens, context.seed)
        counts = [[count] for count in self.keep]
        weighed = losses(work, found, counts, feeds, 1, None, self.damping, context.progress)
        going = {
            one: each.order[: one.size - count]
            for one, each, count in zip(found, weighed, self.keep, strict=True)
            if count < one.size
            and context.allow(f"keep {count} of {one.size} {one.kind} before {one.output.root}")
        }
        statistics: dict[str, int | float | str] = {
            f"{word} kept": " ".join(
                f"{one.size - len(going.get(one, ()))}/{one.size}" for one in found if one.kind == kind
            )
            for kind, word in (("heads", "heads"), ("width", "neurons"))
        }
        if not going:
            return Result(program, False, statistics, tuple(notes))
        remove(work, going)
        rejoin(work)
        if self.refit is not None:
            errors, more = refit(work, program, feeds, self.refit, self.damping, context.progress)
            notes += more
            if errors:
                pairs = errors.values()
                before, after = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
                statistics |= {"error before refitting": round(before, 4), "after": round(after, 4)}
        return Result(work, True, statistics, tuple(notes))

    def _check(self, found: list[Units], notes: list[str]) -> None:
        if not found:
            raise PassError(f"there is nothing to remove: {notes[0] if notes else 'no block was recognised'}")
        sizes = [one.size for one in found]
        if len(sizes) != len(self.keep):
            raise PassError(
                f"keep has {len(self.keep)} numbers and the model {len(sizes)} blocks, of "
                f"{', '.join(map(str, sizes))} units: give one for each"
            )
        for number, (count, size) in enumerate(zip(self.keep, sizes, strict=True), 1):
            if count > size:
                raise PassError(f"keep asks for {count} units of block {number}, which has {size}")


def blocks(program: Program) -> tuple[Program, list[Units]]:
    """A copy of a program, ready to be cut, and its blocks."""
    from .surgery.separate import separate
    from .surgery.units import units

    work = program.clone()
    separate(work)
    return work, units(work)

"""factorise-linear: a product as two of a low rank, where the activations let it be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from .low_rank.layers import Layers
    from .low_rank.truncated import Spectrum

ENERGY = 0.9  # where neither a rank nor a share is asked for


@dataclass(frozen=True)
class FactoriseLinear(Pass):
    """Write linear layers as two products each, with fewer features between.

            q = linear(x, wq[768,768]); k = linear(x, wk[768,768]); v = linear(x, wv[768,768])
        ->  z = linear(x, d[256,768]); q = linear(z, uq[768,256]); k = linear(z, uk[768,256]); ...

    The best two for the activations that the layer is given, not for its weight alone: the truncated singular
    value decomposition of W C^1/2, C the second moments of what it reads over real tokens of the calibration
    texts (SVD-LLM: Wang et al., 2024, arXiv:2403.07378, section 3.1; in float64). Where there is a bias they
    are about the mean, and the bias makes up for what the mean loses. Without texts, of W. Layers that read
    one value (queries, keys and values; gate and up) share the first product, and a weight that several
    layers use is factorised once, for what all of them read. Left alone are layers of which two products
    would be no smaller, tables, convolutions, and, where something is measured, all those of one shape that
    make the program no faster.

    rank: of every layer. energy: the share of the squared products on the texts that a layer keeps at least;
        0.9 where neither is given.
    tokens: of text, at most.
    damping: times the mean of the diagonal of C, added to it, where texts are too few to tell.
    """

    name: ClassVar[str] = "factorise-linear"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    rank: int | None = None
    energy: float | None = None
    tokens: int = 20_000
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise ValueError("rank and energy both say how much is kept: give one of them")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank is {self.rank}, and a product has one feature or more")
        if self.energy is not None and not 0 < self.energy < 1:
            raise ValueError(f"energy is {self.energy:g}, and the share that is kept is above 0 and below 1")
        if self.damping <= 0:
            raise ValueError(f"damping is {self.damping:g}, and too few texts need it above 0")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")

    def traces(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import quantized, sound
        from .low_rank.layers import factorised, layers, spectra

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): factorise before")
        found, notes = layers(program)
        for matrix in (matrix for one in found for matrix in one.matrices):
            sound(matrix)
        if not found:
            raise PassError(f"there is no linear layer to factorise{': ' + notes[0] if notes else ''}")
        given = context.training or context.calibration
        feeds = batches(program, given, self.tokens, context.seed) if given else []
        if not feeds:
            notes.append("no texts were given: the weights alone say what is kept")
        known = spectra(program, found, feeds, self.damping)
        ranks, left = self._ranks(found, known)
        if not ranks and self.rank is not None:
            raise PassError(f"no linear layer has a use for rank {self.rank}: {left[0]}")
        if context.measure is not None and context.gates:
            ranks, slower = _faster(program, found, known, ranks, context)
            left += slower
        ranks = {
            number: rank
            for number, rank in ranks.items()
            if context.allow(f"factorise {found[number].name} to {rank}")
        }
        told = _statistics(found, known, ranks)
        return Result(factorised(program, known, ranks), bool(ranks), told, (*notes, *left))

    def _ranks(self, found: Sequence[Layers], known: Sequence[Spectrum]) -> tuple[dict[int, int], list[str]]:
        """The rank of each, by its number, and a sentence for each that gains nothing from its own."""
        ranks, left = {}, []
        for number, (one, spectrum) in enumerate(zip(found, known, strict=True)):
            rank = self.rank or spectrum.rank(ENERGY if self.energy is None else self.energy)
            if rank <= one.most:
                ranks[number] = rank
                continue
            full = min(one.rows, one.columns)
            what = f"two products of rank {rank} are no smaller than its {one.rows}x{one.columns}"
            if rank >= full:
                what = (
                    f"its rank is {full} at most, and {rank} {'was asked for' if self.rank else 'is needed'}"
                )
            left.append(f"{one.name} stays, {what}")
        return ranks, left


def _faster(
    program: Program,
    found: Sequence[Layers],
    known: Sequence[Spectrum],
    ranks: dict[int, int],
    context: Context,
) -> tuple[dict[int, int], list[str]]:
    """The ranks of those shapes that make the program faster, all of one shape measured together; what was
    chosen for one graph of a bundle holds for all of them."""
    from ..lower.timed.timing import Timing
    from .low_rank.layers import factorised

    shapes: dict[tuple[int, int], list[int]] = {}
    for number in ranks:
        shapes.setdefault((found[number].rows, found[number].columns), []).append(number)
    chosen = {} if context.chosen is None else context.chosen
    timing: Timing | None = None
    kept: dict[int, int] = {}
    notes = []
    for done, (shape, numbers) in enumerate(shapes.items()):
        mine = {number: ranks[number] for number in numbers}
        key = ("factorise-linear", shape, *mine.items())
        if key not in chosen:
            context.progress("timing factorised layers", done, len(shapes))
            timing = timing or Timing(program, context, "")
            chosen[key] = timing(factorised(program, known, mine))
        if chosen[key] > 1:
            kept |= mine
        else:
            what = f"{len(numbers)} of {shape[0]}x{shape[1]}, {found[numbers[0]].name} the first, stay"
            notes.append(f"{what}: with them factorised a call is {chosen[key]:.2f} times as fast")
    return kept, notes


def _statistics(
    found: Sequence[Layers], known: Sequence[Spectrum], ranks: dict[int, int]
) -> dict[str, int | float | str]:
    if not ranks:
        return {}
    weights = sum(len(one.matrices) for one in found)
    before = sum(m.tensor.nbytes for number in ranks for m in found[number].matrices)
    after = sum(
        rank * (found[number].rows + found[number].columns) * found[number].matrices[0].tensor.element_size()
        for number, rank in ranks.items()
    )
    kept = [1 - known[number].lost(rank) for number, rank in ranks.items()]
    return {
        "weights factorised": f"{sum(len(found[number].matrices) for number in ranks)} of {weights}",
        "ranks": f"{min(ranks.values())} to {max(ranks.values())}",
        "energy kept": f"{min(kept):.4f} to {max(kept):.4f}",
        "bytes before": before,
        "bytes": after,
    }

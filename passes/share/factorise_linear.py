"""factorise-linear: a product as two of a low rank, where the activations let it be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Feed, Lossy, Pass, Result
from ..manager.varying import Between

if TYPE_CHECKING:
    from .low_rank.layers import Layers
    from .low_rank.truncated import Spectrum

ENERGY = 0.9  # where nothing is asked for
SHORT = 0.95  # of the goal is still what was asked for, as far as a clock can tell


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
        0.9 where nothing is given.
    latency: the share of its time that a call takes at most. Ranks are then those that lose least at the
        outputs, layer by layer, as in prune-to-latency: a few ranks of layers of one shape are timed, what
        each layer loses alone is measured, and what is chosen is built, timed, and chosen anew where it is
        too slow. Needs texts and something to measure.
    workload: the name of the call that latency is of; the first of the run's where none is named.
    choices: how many ranks of each shape are timed for a latency.
    tokens: of text, at most.
    damping: times the mean of the diagonal of C, added to it, where texts are too few to tell.
    """

    name: ClassVar[str] = "factorise-linear"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"energy": Between(0.8, 0.99)}

    rank: int | None = None
    energy: float | None = None
    latency: float | None = None
    workload: str = ""
    choices: int = 4
    tokens: int = 20_000
    damping: float = 0.01

    def __post_init__(self) -> None:
        given = [name for name in ("rank", "energy", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how much is kept: give one of them")
        if self.latency is not None and not 0 < self.latency < 1:
            raise ValueError(f"latency is {self.latency:g}, and the share of the time is above 0 and below 1")
        if self.workload and self.latency is None:
            raise ValueError(f"workload is {self.workload}, and says what a latency is of: give that, too")
        if self.choices < 1:
            raise ValueError(f"choices is {self.choices}, and at least one rank is timed")
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

    def requires(self) -> tuple[str, ...]:
        return () if self.latency is None else ("calibration", "measure")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import quantized, sound
        from .low_rank.by_time import faster
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
        missed, measured = "", 0.0
        if self.latency is not None:
            ranks, measured = self._timed(program, found, known, feeds, context)
            left = [f"{one.name} stays one product" for n, one in enumerate(found) if n not in ranks]
            if measured * self.latency < SHORT:
                best = f"the best that was found takes {1 / measured:.2f}, and that is what is kept"
                best = best if ranks else "nowhere are two products faster than one"
                missed = f"a call was to take {self.latency:g} of its time, and {best}"
        else:
            ranks, left = self._ranks(found, known)
        if not ranks and self.rank is not None:
            raise PassError(f"no linear layer has a use for rank {self.rank}: {left[0]}")
        if self.latency is None and context.measure is not None and context.gates:
            ranks, slower = faster(program, found, known, ranks, context)
            left += slower
        ranks = {
            number: rank
            for number, rank in ranks.items()
            if context.allow(f"factorise {found[number].name} to {rank}")
        }
        told = _statistics(found, known, ranks)
        if measured:
            told["speed-up measured"] = round(measured, 3)
        done = factorised(program, known, ranks)
        return Result(done, bool(ranks), told, (*notes, *left), missed=missed)

    def _timed(
        self,
        program: Program,
        found: Sequence[Layers],
        known: Sequence[Spectrum],
        feeds: Sequence[Feed],
        context: Context,
    ) -> tuple[dict[int, int], float]:
        """Ranks for the latency, and the speed-up that was measured with them: one choice for all graphs of a
        bundle."""
        from .low_rank.by_time import ByTime

        assert self.latency is not None
        chosen = {} if context.chosen is None else context.chosen
        key = (str(self), *((one.name, one.rows, one.columns) for one in found))
        if key not in chosen:
            search = ByTime(
                program, found, known, feeds, context, workload=self.workload, choices=self.choices
            )
            chosen[key] = search.planned(1 / self.latency)
        return dict(chosen[key].ranks), chosen[key].speedup

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

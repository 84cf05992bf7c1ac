"""grouped-linear: block-diagonal products, of which each sees one group of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from .groups.cut import Cut
    from .groups.sites import Site


@dataclass(frozen=True)
class GroupedLinear(Pass):
    """Let each group of a product's outputs see one group of its inputs (SqueezeBERT).

            a = gelu(linear(x, up[3072,768])); y = linear(a, down[768,3072])
        ->  x1, x2 = split(x)
            a1 = gelu(linear(x1, up1[1536,384])); y1 = linear(a1, down1[384,1536]); ...
            y = concat(y1, y2)

    Iandola et al., 2020, arXiv:2006.11316, section 3. A product in g groups has a g-th of its weights and its
    multiplications. Queries, keys and values, and both products of a feed-forward, are grouped; the output
    projection of attention stays whole, as there, because it alone lets the groups of one token meet.

    Each block is a product of its own with a matrix of its own, not a grouped convolution and not a batched
    product: those have one array of three axes, which no runtime packs before it runs, none of int8, few
    bits, pruning and factorising takes, and around which tokens are transposed. What it costs is a split
    before and a concatenation after; a feed-forward becomes `groups` narrow ones with neither between.
    Whoever wants an attention's projections whole (`prune-heads`, `tie-layers{what=attention}`, `fuse-qkv`)
    belongs before this pass, or finds none to work on.

    Blocks are least squares towards the product's outputs on what the calibration texts give it, in float64;
    without texts they are what stands on the diagonal. The neurons of a feed-forward go to the groups in
    which they keep most (weight squared times the second moment of what it multiplies, of both products;
    equal counts, the best assignment), which is exact and free because both matrices are stored anew; a
    stream that others read too would need a gather, so its features stay in their order. Little of a trained
    model is left without training afterwards (`distill`).

    groups: of features. Products whose sizes it doesn't divide stay.
    where: "ffn", "attention" (queries, keys and values), or "all" of both.
    tokens: of text, at most.
    damping: times the mean of the second moments, the pull towards the diagonal where texts are too few.
    """

    name: ClassVar[str] = "grouped-linear"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    groups: int = 4
    where: Literal["all", "attention", "ffn"] = "all"
    tokens: int = 20_000
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise ValueError(f"groups is {self.groups}, and a product is cut into 2 or more")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")
        if self.damping <= 0:
            raise ValueError(f"damping is {self.damping:g}, and too few texts need it above 0")

    def traces(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import quantized, sound
        from .groups.cut import cuts
        from .groups.sites import sites

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): group before")
        found, notes = sites(program, self.where)
        notes += [f"{site.name} stays, {why}" for site in found if (why := site.unfit(self.groups))]
        fit = [site for site in found if not site.unfit(self.groups)]
        notes = list(dict.fromkeys(notes))
        if not fit:
            raise PassError(f"there is no product to group: {notes[0] if notes else _nothing(self.where)}")
        for matrix in (matrix for site in fit for matrix, _ in site.products):
            sound(matrix)
        given = context.training or context.calibration
        feeds = batches(program, given, self.tokens, context.seed) if given else []
        if not feeds:
            notes.append("no texts were given: blocks are what stands on the diagonal")
        made = []
        for number, cut in enumerate(cuts(program, fit, feeds, self.groups, self.damping)):
            context.progress("fitting groups", number, len(fit))
            made.append(cut)
        done = self._write(program, fit, made, context)
        return Result(program, bool(done), _statistics(done, self.groups, len(found)), tuple(notes))

    def _write(
        self, program: Program, found: Sequence[Site], made: Sequence[Cut], context: Context
    ) -> list[tuple[Site, Cut]]:
        from ...ir.fx.graph import propagate, prune
        from .groups.write import Writer

        writer = Writer(program.graph, self.groups)
        done = []
        for site, cut in zip(found, made, strict=True):
            if not context.allow(f"group {site.name} by {self.groups}"):
                continue
            if site.feed_forward:
                writer.feed_forward(site, cut.blocks)
            else:
                writer.projection(site, [block for piece in cut.blocks for block in piece])
            done.append((site, cut))
        if done:
            prune(program.graph)
            propagate(program.graph)
            program.graph.recompile()
        return done


def _statistics(done: Sequence[tuple[Site, Cut]], groups: int, found: int) -> dict[str, int | float | str]:
    if not done:
        return {}
    before = sum(matrix.tensor.nbytes for site, _ in done for matrix, _ in site.products)
    kept = [share for _, cut in done for share in cut.kept]
    return {
        "feed-forwards and projections grouped": f"{len(done)} of {found}",
        "energy kept": f"{min(kept):.4f} to {max(kept):.4f}",
        "bytes before": before,
        "bytes": before // groups,
    }


def _nothing(where: str) -> str:
    kinds = {"ffn": "feed-forward", "attention": "attention", "all": "attention or feed-forward"}
    return f"no {kinds[where]} with weights of its own was recognised"

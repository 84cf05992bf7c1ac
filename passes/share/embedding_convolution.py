"""embedding-convolution: a narrow embedding is widened over neighbouring tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result

if TYPE_CHECKING:
    from .tables.widened import Widened


@dataclass(frozen=True)
class EmbeddingConvolution(Pass):
    """Widen a factorised embedding by a convolution over neighbouring tokens (MobileBERT).

            h = linear(e, w[768,128]); e = embedding(rows[30522,128], ids)
        ->  p = pad(e * mask); h = linear(concat(p[:, :-2], e, p[:, 2:]), w[768,3*128])

    Sun et al., 2020, arXiv:2004.02984, section 3.2: a token's wide vector is a product of its own narrow one
    and those of the tokens beside it. Neighbours' weights are 1e-20 of its own at first, so that no sum
    in float32 notices, and random instead of zeros, which training takes for pruned and keeps; `distill`
    learns them. It belongs behind `factorise-embedding`, and takes ALBERT's form too, where positions and
    types are added and normalised before the product.

    From then on a token depends on the tokens beside it in its own text. Beyond the text's ends a neighbour
    counts as zeros, on padded places too (the attention mask says which), so that no output at a real token
    depends on how a batch is padded. MobileBERT itself reads the vectors of padding there. A program without
    such a mask has no padding to tell, and every token counts as text.

    Models that look back only are refused: a token would see the next one. So is a product whose weight
    something else reads (a head that shares the factorised table), and one that is such a convolution.

    kernel: tokens that a vector is made of, odd: the token, and half of the others on either side.
    """

    name: ClassVar[str] = "embedding-convolution"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact()

    kernel: int = 3

    def __post_init__(self) -> None:
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(
                f"kernel is {self.kernel}, and a token has as many neighbours before as after: 3, 5"
            )

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import propagate, prune
        from ..common.fx_weights import quantized
        from .tables.widened import convolve, widened

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): widen it before")
        found, notes = widened(program)
        fit = [one for one in found if not one.reason]
        notes += [f"{one.name} stays, {one.reason}" for one in found if one.reason]
        if not fit:
            reason = notes[0] if notes else "no embedding of token ids was recognised"
            raise PassError(f"there is no narrow embedding to widen over neighbours: {reason}")
        done: list[Widened] = []
        before = sum(one.weight.numel() for one in fit)
        for one in fit:
            if not context.allow(f"convolve {one.name} over {self.kernel} tokens"):
                continue
            convolve(program, one, self.kernel, context.seed)
            done.append(one)
            if one.mask is None:
                notes.append(f"{one.name}: no mask tells padding from text, so every token counts as text")
        if done:
            prune(program.graph)
            propagate(program.graph)
            program.graph.recompile()
        told: dict[str, int | float | str] = {
            "embeddings widened over neighbours": f"{len(done)} of {len(found)}",
            "parameters before": before,
            "parameters": before + (self.kernel - 1) * sum(one.weight.numel() for one in done),
        }
        return Result(program, bool(done), told if done else {}, tuple(notes))

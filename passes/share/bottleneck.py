"""bottleneck: layers that are narrow inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.footprint import parameters
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Feed, Lossy, Pass, Result

if TYPE_CHECKING:
    from .narrow.sites import Site
    from .narrow.weights import Narrow
    from .narrow.write import Layer


@dataclass(frozen=True)
class Bottleneck(Pass):
    """Make layers narrow inside: a product in, an attention and several feed-forwards, a product out.

            a = norm(x + attention(x[512])); y = norm(a + linear(gelu(linear(a, up[2048,512])), down))
        ->  t = norm(linear(x, in[128,512])); t = norm(t + attention(t[128], x[512]))
            t = norm(t + linear(gelu(linear(t, up0[512,128])), down0[128,512])); ...
            y = norm(x + linear(t, out[512,128]))

    MobileBERT's body (Sun et al., 2020, arXiv:2004.02984, sections 3.1 and 3.2). Heads keep their number and
    have width / heads features each; norms and activations are as the layer's own. A pre-norm layer stays
    one: the bottleneck reads its first norm, and has norms before its sub-layers. Layers that share weights
    share the new ones, fitted for all of them. `factorise-embedding` and
    `embedding-convolution` make the rest of a MobileBERT.

    With calibration texts, in float64: the bottleneck holds the principal directions of what the layer reads,
    heads keep the places that give most of their scores, neurons that give most are dealt out to the
    feed-forwards in turn, and then everything is fitted by least squares towards what the layer gave, layer
    by layer, given what the narrow ones before it make. Without texts the weights alone say what is kept.
    Either way little of a trained model is left: this is a start for `distill`, no more. Neurons beyond those
    of the layer start with 1e-20 of what the others give, not zeros, which training takes for pruned.

    Layers stay, with a note, where positions turn the features of a head (Llama, ModernBERT), where queries
    read other values than keys, and where a layer is narrow already (MobileBERT itself).

    width: features inside. It has to fall into the heads, and be less than the stream's.
    feed_forwards: how many follow each other. intermediate: neurons of each; none: the layer's, shared out.
    attention: what it reads: "shared": values the stream, queries and keys a bottleneck of their own
        (MobileBERT's key_query_shared_bottleneck); "bottleneck": all of them what the feed-forwards are added
        to (MobileBERT-tiny); "input": all of them the stream (MobileBERT's teacher).
    tokens: of text, at most.
    """

    name: ClassVar[str] = "bottleneck"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    width: int = 128
    feed_forwards: int = 4
    intermediate: int | None = None
    attention: Literal["shared", "bottleneck", "input"] = "shared"
    tokens: int = 20_000

    def __post_init__(self) -> None:
        for name, said in (
            ("width", "a bottleneck has one feature or more"),
            ("feed_forwards", "a layer has one feed-forward or more"),
            ("intermediate", "a feed-forward has one neuron or more"),
            ("tokens", "at least one is needed"),
        ):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, and {said}")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import find, quantized, sound
        from .narrow.fit import fit
        from .narrow.sites import sites

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): make it narrow before")
        found, notes = sites(program, self.width, self.attention)
        if not found:
            raise PassError(
                f"there is no layer to make narrow: {notes[0] if notes else 'none was recognised'}"
            )
        for matrix in find(program)[0]:
            sound(matrix)
        texts = context.training or context.calibration
        feeds = batches(program, texts, self.tokens, context.seed) if texts else []
        if not feeds:
            notes.append("no texts were given: the weights alone say what is kept")
        chosen = self._allowed(found, context)
        told: dict[str, int | float | str] = {"layers made narrow": f"{len(chosen)} of {len(found)}"}
        if not chosen:
            return Result(program, False, told, tuple(notes))
        before, teacher = parameters(program), program.clone()
        layers = self._written(program, chosen, feeds, context)
        if feeds:
            errors, away = fit(program, teacher, layers, feeds, context.progress)
            told["error by layer"] = " ".join(f"{error:.2g}" for error in errors)
            told["error of the outputs"] = round(away, 4)
        told["parameters before"], told["parameters"] = before, parameters(program)
        return Result(program, True, told, tuple(notes))

    def _allowed(self, found: Sequence[Site], context: Context) -> list[Site]:
        """Layers that have weights or a head size in common go together."""
        together: dict[int, list[Site]] = {}
        of: dict[object, int] = {}
        for number, site in enumerate(found):
            marks = [*site.key, *map(id, site.cut)]
            home = min((of[mark] for mark in marks if mark in of), default=number)
            of.update(dict.fromkeys(marks, home))
            together.setdefault(home, []).append(site)
        allowed = [
            each
            for each in together.values()
            if context.allow(f"make {', '.join(site.name for site in each)} narrow")
        ]
        chosen = {id(site) for each in allowed for site in each}
        return [site for site in found if id(site) in chosen]

    def _written(
        self, program: Program, chosen: Sequence[Site], feeds: Sequence[Feed], context: Context
    ) -> list[Layer]:
        from ...ir.fx.graph import propagate, prune
        from .narrow.heads import cut_heads
        from .narrow.run import given
        from .narrow.weights import Sizes, narrow, shared
        from .narrow.write import Writer

        gm = program.graph
        order = {node: place for place, node in enumerate(gm.graph.nodes)}
        known = given(program, chosen, feeds, context.progress) if feeds else [None] * len(chosen)
        insides = [site.activation(order) for site in chosen]
        new: list[Narrow] = []
        for number, (site, inside) in enumerate(zip(chosen, insides, strict=True)):
            inner = self.intermediate or -(-site.feed_forward.width // self.feed_forwards)
            sizes = Sizes(self.width, self.feed_forwards, inner, self.attention)
            like = next((n for n, one in enumerate(chosen[:number]) if {*one.key} & {*site.key}), number)
            basis = new[like].basis if like < number else None
            made = narrow(gm, site, inside[0], sizes, known[like], context.seed, basis)
            for place, one in enumerate(chosen[:number]):
                made = shared(made, new[place], [a == b for a, b in zip(one.key, site.key, strict=True)])
            new.append(made)
        kept = cut_heads(program, [(site.attention, site.cut) for site in chosen], self.width)
        writer = Writer(gm, order, self.attention)
        layers = [
            writer.layer(site, one, inside, each)
            for site, one, inside, each in zip(chosen, new, insides, kept, strict=True)
        ]
        prune(gm)
        propagate(gm)
        gm.recompile()
        return layers

"""tie-layers: layers that share their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.blocks import recognise
from ...ir.blocks.stream import streams
from ...ir.errors import PassError
from ...ir.footprint import parameters
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from .layers.ties import Tie

TOKENS = 20_000  # to fit on


@dataclass(frozen=True)
class TieLayers(Pass):
    """Let layers share their weights: one set of parameters for many (ALBERT, Universal Transformer).

            h1 = layer(x, w0); h2 = layer(h1, w1); h3 = layer(h2, w2); h4 = layer(h3, w3)
        ->  h1 = layer(x, w0); h2 = layer(h1, w0); h3 = layer(h2, w0); h4 = layer(h3, w0)

    Lan et al., 2019, arXiv:1909.11942, section 3.1; Dehghani et al., 2018, arXiv:1807.03819. It saves bytes,
    no time. Layers are found by structure, those of an encoder and of a decoder apart, and like is tied with
    like: what one of them alone has (the norm that ModernBERT's first layer lacks) is named, and what none
    has for itself (T5's relative positions) stays as it is. Layers of unequal sizes are refused. Little of a
    trained model is left without training afterwards (`distill`).

    what: "all" of a layer; its "attention": the four projections and their biases, norms of queries and keys,
        a decoder's cross-attention as well; or its "ffn". Norms of the stream are shared by "all" alone: they
        are 0.1% of the rest, and let a layer scale what the shared weights are given.
    groups: how many sets of weights there are. A run of layers is cut into so many chunks, and those of a
        chunk share one (ALBERT's groups; Fan et al., 2020, arXiv:2004.07320, likewise).
    repeats: how many runs there are, one after the other, over the same sets. With groups=3 and repeats=2,
        six layers have the sets 0 1 2 0 1 2, and twelve have 0 0 1 1 2 2 0 0 1 1 2 2.
    init: what is shared at first: the weights of the "first" layer of each set, their "mean", or "fit": what
        brings linear maps and norms nearest to what the layers gave, by least squares on calibration data,
        each layer being given what the shared ones before it make. Everything else is then the mean.
    stack: "encoder" or "decoder" leaves the other alone.
    rounds: steps of the fit, each one run over the data; what comes nearest is kept.
    """

    name: ClassVar[str] = "tie-layers"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"what": ("all", "attention", "ffn"), "groups": (1, 2, 3)}

    what: Literal["all", "attention", "ffn"] = "all"
    groups: int = 1
    repeats: int = 1
    init: Literal["first", "mean", "fit"] = "first"
    stack: Literal["all", "encoder", "decoder"] = "all"
    rounds: int = 6

    def __post_init__(self) -> None:
        for name, said in (
            ("groups", "layers share 1 set of weights or more"),
            ("repeats", "the sets are gone through once or more"),
            ("rounds", "a fit takes 1 or more"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and {said}")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.init == "fit" else ()

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import quantized
        from .tables.tied import tie

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): tie its layers before")
        chosen, sets, notes = self._chosen(program, context)
        before, teacher = parameters(program), program.clone()
        start: Literal["first", "mean"] = "first" if self.init == "first" else "mean"
        made = tie(program, [one.paths for one in chosen], start)
        statistics: dict[str, int | float | str] = {"sets of weights": sets}
        if not made:
            notes.insert(0, "nothing to tie: the layers share these weights already" if chosen else
                         "nothing to tie: each set is a single layer")  # fmt: skip
            return Result(program, False, statistics, tuple(notes))
        if self.init == "fit":
            from ..common.batches import batches
            from .layers.fitting import fit

            feeds = batches(program, context.calibration, TOKENS, context.seed)
            errors, kept = fit(program, teacher, made, feeds, self.rounds, context.progress)
            notes += kept
            statistics["error of outputs by round"] = " ".join(f"{error:.3g}" for error in errors)
        statistics["parameters before"], statistics["parameters after"] = before, parameters(program)
        return Result(program, True, statistics, tuple(notes))

    def _chosen(self, program: Program, context: Context) -> tuple[list[Tie], str, list[str]]:
        """(what becomes one, the set of each layer, notes)."""
        from .layers.parts import layers
        from .layers.ties import sets, ties

        graph = view(program)
        blocks = recognise(graph)
        found, notes = streams(graph, blocks)
        wanted = [s for s in found if self.stack == "all" or s.decoder == (self.stack == "decoder")]
        deep = [stream for stream in wanted if len(stream.layers) > 1]
        if not deep:
            missed = [f"{m.node} is no attention: {m.reason}" for m in blocks.missed if m.kind == "attention"]
            there = f"{len(wanted)} of {len(found)} stacks looked at, none of two layers or more"
            raise PassError(f"there are no layers to tie: {[*notes, *missed, there][0]}")
        chosen: list[Tie] = []
        said = []
        for stream in deep:
            made = layers(program.graph, stream, blocks)
            together = sets(len(made), self.groups, self.repeats)
            name = " of the decoder" if stream.decoder else ""
            for numbers in together:
                tied, unlike = ties(program.graph, made, numbers, self.what)
                if len(numbers) > 1 and context.allow(f"tie layers {', '.join(map(str, numbers))}{name}"):
                    chosen += tied
                    notes += unlike
            place = {number: i for i, numbers in enumerate(together) for number in numbers}
            said.append(" ".join(str(place[number]) for number in range(len(made))))
        return chosen, "; ".join(said), notes

"""prune-layers: fewer layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.blocks import recognise
from ...ir.blocks.stream import streams
from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between, Varying

if TYPE_CHECKING:
    from ...ir.blocks import Blocks


@dataclass(frozen=True)
class PruneLayers(Pass):
    """Remove whole layers: LayerDrop's pruning (Fan et al., 2019, arXiv:1909.11556).

            h1 = layer0(x); h2 = layer1(h1); h3 = layer2(h2); y = head(h3)
        ->  h1 = layer0(x); h3 = layer2(h1); y = head(h3)

    A layer is an attention and a feed-forward with their residuals and norms; a decoder's has a
    cross-attention in between. They are found by structure (streams.py), those of an encoder and of a
    decoder apart, and count from 0, as names of parameters do. What a layer computes for others without
    looking at the stream, such as the relative positions of T5's first layer, stays. Layers that
    share their weights save time and no bytes.

    keep: how many layers stay of each stack; 0 is half of them, rounded up.
    choose: which. "every-other" spreads the kept ones evenly, up to the last: it is what the head has learned
        to read, and `distill` maps layers alike. "bottom" keeps the first ones, "top" the last ones; "search"
        takes away the layer that costs least quality, again and again: the context's score, or without one
        the cosine between outputs on the calibration data.
    beam: how many choices "search" goes on with; 1 is greedy.
    layers: the layers to keep by number from 0, instead of keep and choose.
    stack: "encoder" or "decoder" leaves the other alone.
    """

    name: ClassVar[str] = "prune-layers"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    keep: int = 0
    choose: Literal["every-other", "bottom", "top", "search"] = "every-other"
    beam: int = 1
    layers: tuple[int, ...] = ()
    stack: Literal["all", "encoder", "decoder"] = "all"

    @classmethod
    def varying(cls, program: Program) -> Varying:
        """One layer to all but one, of the longest stack."""
        graph = view(program)
        depth = max((len(stream.layers) for stream in streams(graph, recognise(graph))[0]), default=0)
        return {"keep": Between(1, depth - 1)} if depth > 1 else {}

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}, and 1 layer or more must stay (0: half of them)")
        if self.beam < 1:
            raise ValueError(f"beam is {self.beam}, and a search goes on with 1 choice or more")
        if self.layers and (self.keep or self.choose != "every-other"):
            raise ValueError(
                "layers says which layers stay, so keep and choose have nothing to say: leave them out"
            )
        if len(set(self.layers)) < len(self.layers) or min(self.layers, default=0) < 0:
            raise ValueError(f"layers is {self.layers}, and each is a number from 0, given once")

    def run(self, program: Program, context: Context) -> Result:
        from .importance.layer_search import search
        from .surgery.remove_layers import remove_layers

        graph = view(program)
        blocks = recognise(graph)
        found, notes = streams(graph, blocks)
        wanted = [s for s in found if self.stack == "all" or s.decoder == (self.stack == "decoder")]
        if not wanted:
            raise PassError(self._nothing(len(found), notes, blocks))
        counts = [len(stream.layers) for stream in wanted]
        if self.choose == "search":
            kept = search(program, wanted, [self._count(n) for n in counts], self.beam, context)
        else:
            kept = [self._chosen(n) for n in counts]
        gone = [
            (stream.layers[number], f"remove layer {number}{' of the decoder' if stream.decoder else ''}")
            for stream, chosen in zip(wanted, kept, strict=True)
            for number in range(len(stream.layers))
            if number not in chosen
        ]
        allowed = [layer for layer, said in gone if context.allow(said)]
        if allowed:
            remove_layers(program, allowed)
        statistics: dict[str, int | float | str] = {"layers removed": len(allowed)}
        for number, (stream, chosen) in enumerate(zip(wanted, kept, strict=True)):
            name = "layers kept" + (
                f" of {'decoder' if stream.decoder else 'encoder'}" if len(wanted) > 1 else ""
            )
            if name in statistics:
                name = f"{name} {number + 1}"
            statistics[name] = f"{', '.join(map(str, chosen))} out of 0 to {len(stream.layers) - 1}"
        return Result(program, bool(allowed), statistics, tuple(notes))

    def _nothing(self, stacks: int, notes: list[str], blocks: Blocks) -> str:
        missed = [f"{m.node} is no attention: {m.reason}" for m in blocks.missed if m.kind == "attention"]
        there = f"there {'is 1 stack' if stacks == 1 else f'are {stacks} stacks'} of layers"
        why = [*notes, *missed, there][0] if not stacks else there
        return f"no layers were found in {'the model' if self.stack == 'all' else f'a {self.stack}'}: {why}"

    def _count(self, layers: int) -> int:
        return min(self.keep or (layers + 1) // 2, layers)

    def _chosen(self, layers: int) -> list[int]:
        """The layers to keep of so many."""
        if self.layers:
            if max(self.layers) >= layers:
                raise PassError(
                    f"there is no layer {max(self.layers)}: the stack has layers 0 to {layers - 1}"
                )
            return sorted(self.layers)
        count = self._count(layers)
        if self.choose == "every-other":
            return [(number + 1) * layers // count - 1 for number in range(count)]
        return list(range(count)) if self.choose == "bottom" else list(range(layers - count, layers))

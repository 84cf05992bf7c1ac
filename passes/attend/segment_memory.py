"""segment-memory: long texts read segment by segment, with keys and values of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class SegmentMemory(Pass):
    """Let a causal model read a long text segment by segment, and remember what it read.

            k, v = x Wk, x Wv;  y = softmax(q k^T + mask) v
        ->  k, v = [memory_keys, x Wk], [memory_values, x Wv];  y = softmax(q k^T + mask) v
            new_memory_keys, new_memory_values = k[-length:], v[-length:]

    Segment recurrence (Transformer-XL: Dai et al., 2019, arXiv:1901.02860, section 3.2); older tokens are
    compressed instead of dropped where that is asked for (Compressive Transformer: Rae et al., 2020,
    arXiv:1911.05507, section 3, by their mean). Each attention gets two inputs, (batch, places, features),
    keys and values as they are projected, and two outputs for the next call; `memory_count`, int64 (batch,),
    says how many tokens of each text came before. All zeros is an empty memory, and an input that is left out
    is one: a first segment gives what it gave. `gw.load(...).stream()` carries them along.

    Keys are turned anew in each call, by their place in [memory, segment], which is exact and never leaves
    the lengths that the model knows. Tables of places are read by the same places: exact until the memory is
    full; then each segment stands behind a full memory once more, which a model may have to learn. Padding is
    not remembered; in a first segment the model counts it as it did, so pad on the right where places come
    from a table. A segment is as long as the longest text less what is remembered, at most.

    Refused, by name: models that look ahead, windows shorter than the memory, biases of position, positions
    that come in as an input.

    length: tokens remembered as they were. compressed: means of older ones; each counts for as many keys as
        it is of, at the place of the middle one. rate: tokens in a mean.
    """

    name: ClassVar[str] = "segment-memory"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact(1e-4, "mask")

    length: int = 512
    compressed: int = 0
    rate: int = 1

    def __post_init__(self) -> None:
        for option, least in (("length", 1), ("compressed", 0), ("rate", 1)):
            if getattr(self, option) < least:
                raise ValueError(f"{option} is {getattr(self, option)}, and {least} at least")
        if self.rate > 1 and not self.compressed:
            raise ValueError(
                f"rate is {self.rate}, and nothing is compressed: give compressed, as compressed=128"
            )

    def traces(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import propagate
        from .memory.fits import bounds, length_of
        from .memory.places import places
        from .memory.state import Memory
        from .memory.trial import goes_on
        from .memory.write import Writer
        from .parts.long_text import long_text
        from .parts.site import sites
        from .parts.substitute import put

        if any(spec.role == "memory" for spec in program.inputs):
            raise PassError("it has a memory already")
        memory, whole = Memory(self.length, self.compressed, self.rate), program.clone()
        long_text(program)
        found, reasons = sites(program)
        symbol = length_of(program, found, reasons, memory.span)
        symbols = bounds(program, symbol, memory.span)
        if not context.allow(f"a memory of {memory.places} places"):
            return Result(program, False)
        counted = places(program, found)  # computed, so before there are inputs that the program doesn't know
        writer = Writer(program, found, memory)
        for each in counted:
            writer.move(each)
        pairs = [(site, writer.attend(site)) for site in found]
        writer.give()
        put(program, pairs)
        propagate(program.graph)  # places that were one text's are each text's own
        after = replace(
            program,
            inputs=(*program.inputs, *writer.inputs),
            outputs=(*program.outputs, *writer.outputs),
            symbols=symbols,
        )
        goes_on(whole, after, symbol, memory.whole)
        told: dict[str, int | float | str] = {
            "attentions": len(pairs),
            "places": memory.places,
            "tokens remembered": memory.span,
            "longest segment": symbols[symbol][1],
            "kB a text": round(writer.size / 1000),
        }
        note = (
            f"places come from a table: behind {memory.span} tokens of a text, segments stand at the same "
            "places again and again, which the model was not trained for; judge it on long texts"
        )
        return Result(after, True, told, (note,) if any(each.added for each in counted) else ())

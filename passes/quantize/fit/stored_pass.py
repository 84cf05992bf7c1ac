"""What quantize-weights and quantize-gobo share: bits by kind of weight, and what is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.program import Program
from ...manager.contract import Context, Lossy, Pass
from ..codes.decode import OLDEST_OPSET
from ..codes.stored import StoredWeight, find
from ..int8.sites import quantized


@dataclass(frozen=True)
class StoredPass(Pass):
    """Store weights of products and tables in few bits.

    bits: of the weights of products; 0 leaves them. embeddings: of tables; none: as `bits`; 0 leaves them.
    """

    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    widths: ClassVar[tuple[int, ...]]  # that can be stored

    bits: int = 4
    embeddings: int | None = None

    def __post_init__(self) -> None:
        for option, bits in (("bits", self.bits), ("embeddings", self.embeddings)):
            if bits not in (None, 0, *self.widths):
                *most, last = sorted(self.widths, reverse=True)
                known = f"{', '.join(map(str, most))} or {last}"
                raise ValueError(f"{option} is {bits}, and weights are stored in {known} bits (0: left)")

    def bits_of(self, weight: StoredWeight) -> int:
        return self.embeddings if weight.table and self.embeddings is not None else self.bits

    def choose(self, program: Program, context: Context) -> tuple[list[StoredWeight], list[str]]:
        """Weights to store, and a sentence for what stays as it is."""
        opset = program.graph.graph.opset_imports.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            return [], [f"opset {opset} cannot unpack codes: convert the model to {OLDEST_OPSET} or later"]
        operator = quantized(program.graph)
        if self.bits and operator is not None:
            return [], [f"the model is quantized already: it has {operator}"]
        found, notes = find(program)
        if not any(self.bits_of(w) for w in found):
            return [], ["no weight to quantize", *notes]
        return [w for w in found if self.bits_of(w) and context.allow(f"quantize {w.name}")], notes

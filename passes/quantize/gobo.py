"""quantize-gobo: a few outliers kept, every other weight one of a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..base import Context, Lossy, Pass, Result
from .centroids import Dictionary, dictionary
from .decode import OLDEST_OPSET
from .gobo_form import gobo_form
from .repack import repack
from .rounding import checked
from .sites import quantized
from .stored import Stored, find

_BITS = (0, 1, 2, 3, 4, 8)


@dataclass(frozen=True)
class QuantizeGobo(Pass):
    """Store each weight as outliers and, for all others, indices into a few centroids (GOBO).

    Zadeh et al., 2020, arXiv:2005.03842; centroids.py has the algorithm. No data is needed. Codes are packed
    and decoded by standard operators: products' weights once, as ONNX Runtime loads the model, and of tables
    the rows that a call looks up.

    bits: of the weights of products; 0 leaves them. embeddings: of tables; none: as `bits`; 0 leaves them.
    threshold: natural logarithm of the density of the weights' Gaussian below which one is an outlier.
    """

    name: ClassVar[str] = "quantize-gobo"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()

    bits: int = 3
    embeddings: int | None = None
    threshold: float = -4.0

    def __post_init__(self) -> None:
        for option, bits in (("bits", self.bits), ("embeddings", self.embeddings)):
            if bits is not None and bits not in _BITS:
                raise ValueError(
                    f"{option} is {bits}, and weights are stored in 1, 2, 3, 4 or 8 bits (0: left)"
                )

    def run(self, program: Program, context: Context) -> Result:
        opset = program.graph.graph.opset_imports.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            note = f"opset {opset} cannot unpack codes: convert the model to {OLDEST_OPSET} or later"
            return Result(program, False, notes=(note,))
        operator = quantized(program.graph)
        if self.bits and operator is not None:
            return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
        found, notes = find(program)
        if not any(self._bits(w) for w in found):
            return Result(program, False, notes=("no weight to quantize", *notes))
        weights = [w for w in found if self._bits(w) and context.allow(f"quantize {w.name}")]
        coded: list[tuple[Stored, Dictionary]] = []
        for number, stored in enumerate(weights):
            context.progress("finding centroids", number, len(weights))
            matrix = checked(stored.matrix(), stored.name)
            coded.append((stored, dictionary(matrix, self._bits(stored), self.threshold)))
        counts = repack(program.graph, [(w, gobo_form(w, d)) for w, d in coded])
        outliers = sum(d.values.size for _, d in coded)
        share = outliers / max(1, sum(d.codes.size for _, d in coded))
        said = f"{outliers} ({share:.2%})"
        return Result(
            program, bool(coded), {"weights packed": len(coded), **counts, "outliers": said}, tuple(notes)
        )

    def _bits(self, weight: Stored) -> int:
        return self.embeddings if weight.table and self.embeddings is not None else self.bits

"""quantize-gobo: a few outliers kept, every other weight one of a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Result
from .codes.centroids import Dictionary, dictionary
from .codes.gobo import gobo_form
from .codes.repack import repack
from .codes.rounding import checked
from .codes.stored import StoredWeight
from .fit.stored_pass import StoredPass


@dataclass(frozen=True)
class QuantizeGobo(StoredPass):
    """Store each weight as outliers and, for all others, indices into a few centroids (GOBO).

            y = MatMul(x, w)
        ->  y = MatMul(x, ScatterND(Gather(centroids, codes), places, outliers))

    Zadeh et al., 2020, arXiv:2005.03842; centroids.py has the algorithm. No data is needed. Codes are packed
    and decoded by standard operators: products' weights once, as ONNX Runtime loads the model, and of tables
    the rows that a call looks up.

    threshold: natural logarithm of the density of the weights' Gaussian below which one is an outlier.
    """

    name: ClassVar[str] = "quantize-gobo"
    widths: ClassVar = (1, 2, 3, 4, 8)

    bits: int = 3
    threshold: float = -4.0

    def run(self, program: Program, context: Context) -> Result:
        weights, notes = self.choose(program, context)
        coded: list[tuple[StoredWeight, Dictionary]] = []
        for number, stored in enumerate(weights):
            context.progress("finding centroids", number, len(weights))
            matrix = checked(stored.matrix(), stored.name)
            coded.append((stored, dictionary(matrix, self.bits_of(stored), self.threshold)))
        counts = repack(program.graph, [(w, gobo_form(w, d)) for w, d in coded])
        outliers = sum(d.values.size for _, d in coded)
        share = outliers / max(1, sum(d.codes.size for _, d in coded))
        said = f"{outliers} ({share:.2%})"
        return Result(
            program, bool(coded), {"weights packed": len(coded), **counts, "outliers": said}, tuple(notes)
        )

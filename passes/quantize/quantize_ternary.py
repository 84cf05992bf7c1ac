"""quantize-ternary: weights that are -a, 0 or a, in two bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Result
from .trained.few_levels import FewLevels


@dataclass(frozen=True)
class QuantizeTernary(FewLevels):
    """Store weights in two bits, as -a, 0 or a (TernaryBERT), and let them learn from the program itself.

            y = linear(x, w)
        ->  y = linear(x, scale * levels[codes])         (two bits a weight)

    Zhang et al., 2020, arXiv:2009.12812: weights are approximated by TWN (levels.py), tables with a scale to
    each row, and learn what hidden states and outputs the program gave (sections 3.2 and 3.3). The paper's
    scales are one to a "matrix". Four codes share a byte: about 15 times smaller than float32.
    """

    name: ClassVar[str] = "quantize-ternary"

    def run(self, program: Program, context: Context) -> Result:
        from .trained.levels import ternary
        from .trained.levels_fx import quantize

        return quantize(self, ternary, (-1.0, 0.0, 1.0), program, context)

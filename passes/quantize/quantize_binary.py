"""quantize-binary: weights that are -a or a, in one bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Result
from .trained.few_levels import FewLevels


@dataclass(frozen=True)
class QuantizeBinary(FewLevels):
    """Store weights in one bit, as -a or a; it costs most models most of their quality, which is measured.

            y = linear(x, w)
        ->  y = linear(x, scale * signs[codes])          (a bit a weight)

    Weights are approximated by the binary weights of XNOR-Net (Rastegari et al., 2016, arXiv:1603.05279,
    section 3.1), with a scale to each row. BinaryBERT (Bai et al., 2020, arXiv:2012.15701) tells why one bit
    is so much harder than two, and what more training it takes. Eight codes share a byte.
    """

    name: ClassVar[str] = "quantize-binary"

    def run(self, program: Program, context: Context) -> Result:
        from .trained.levels import binary
        from .trained.levels_fx import quantize

        return quantize(self, binary, (-1.0, 1.0), program, context)

"""quantize-binary: weights that are -a or a, in one bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.program import Program
from ..base import Context, Lossy, Pass, Result
from .ternary import checked


@dataclass(frozen=True)
class QuantizeBinary(Pass):
    """Store weights in one bit, as -a or a; it costs most models most of their quality, which is measured.

    Weights are approximated by the binary weights of XNOR-Net (Rastegari et al., 2016, arXiv:1603.05279,
    section 3.1), with a scale to each row, and learn as in `quantize-ternary`. BinaryBERT (Bai et al., 2020,
    arXiv:2012.15701) tells why one bit is so much harder than two, and what more training it takes.
    Activations stay in float. Eight codes share a byte, and the graph decodes with standard operators.

    scales: "row", one to each output feature, or "matrix", one to each layer's weight.
    steps: of gradient descent; 0 needs no calibration data.
    rate: of learning, relative to the size of the weights.
    embeddings: tables too; False leaves them in float.
    """

    name: ClassVar[str] = "quantize-binary"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    scales: Literal["row", "matrix"] = "row"
    steps: int = 300
    rate: float = 0.01
    embeddings: bool = True

    def __post_init__(self) -> None:
        checked(self.scales, self.steps, self.rate)
        if self.steps:
            object.__setattr__(self, "requires", ("calibration",))

    def run(self, program: Program, context: Context) -> Result:
        from .levels import binary
        from .levels_fx import quantize

        return quantize(self, binary, (-1.0, 1.0), program, context)

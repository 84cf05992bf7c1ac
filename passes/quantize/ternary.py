"""quantize-ternary: weights that are -a, 0 or a, in two bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.program import Program
from ..base import Context, Lossy, Pass, Result


@dataclass(frozen=True)
class QuantizeTernary(Pass):
    """Store weights in two bits, as -a, 0 or a (TernaryBERT), and let them learn from the program itself.

    Zhang et al., 2020, arXiv:2009.12812: weights are approximated by TWN (levels.py), tables with a scale to
    each row. With steps, weights in float are kept beside and learn through the approximation what hidden
    states and outputs the program gave (sections 3.2 and 3.3); activations stay in float. Four codes share a
    byte, and the graph decodes with standard operators: about 15 times smaller than float32.

    scales: "row", one to each output feature, or "matrix", one to each layer's weight, as in the paper.
    steps: of gradient descent; 0 needs no calibration data.
    rate: of learning, relative to the size of the weights.
    embeddings: tables too; False leaves them in float.
    """

    name: ClassVar[str] = "quantize-ternary"
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
        from .levels import ternary
        from .levels_fx import quantize

        return quantize(self, ternary, (-1.0, 0.0, 1.0), program, context)


def checked(scales: str, steps: int, rate: float) -> None:
    """Raises ValueError for an option out of bounds."""
    if scales not in ("row", "matrix"):
        raise ValueError(f"scales is '{scales}', and a scale belongs to a 'row' or to the 'matrix'")
    if steps < 0:
        raise ValueError(f"steps is {steps}, and there are 0 or more")
    if not 0 < rate < 1:
        raise ValueError(f"rate is {rate:g}, and a step of learning is between 0 and 1")

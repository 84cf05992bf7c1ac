"""What quantize-ternary and quantize-binary share: their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...manager.contract import Lossy, Pass


@dataclass(frozen=True)
class FewLevels(Pass):
    """Weights become one of a few levels times a scale, and may learn from the program itself.

    With steps, weights in float are kept beside and learn through the approximation what hidden states and
    outputs the program gave. Activations stay in float. The graph decodes with standard operators.

    scales: "row", one to each output feature, or "matrix", one to each layer's weight; tables always have one
        to each row.
    steps: of gradient descent; 0 needs no calibration data.
    rate: of learning, relative to the size of the weights.
    embeddings: tables too; False leaves them in float.
    """

    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    scales: Literal["row", "matrix"] = "row"
    steps: int = 300
    rate: float = 0.01
    embeddings: bool = True

    def __post_init__(self) -> None:
        if self.scales not in ("row", "matrix"):
            raise ValueError(f"scales is '{self.scales}', and a scale belongs to a 'row' or to the 'matrix'")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}, and there are 0 or more")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate:g}, and a step of learning is between 0 and 1")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.steps else ()

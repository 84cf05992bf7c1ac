"""Weights of two or three levels: what each number becomes, with a scale to a row or to the whole.

Ternary: TWN (Li, Zhang and Liu, 2016, arXiv:1605.04711, section 2.2): with d = 0.7 mean|w|, numbers within d
of 0 become 0, the others a or -a, where a is the mean magnitude of those others. Binary: BWN of XNOR-Net
(Rastegari et al., 2016, arXiv:1603.05279, section 3.1): sign(w) mean|w|, which is the nearest in squares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

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

    @property
    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.steps else ()


Levels = Callable[[torch.Tensor, tuple[int, ...]], tuple[torch.Tensor, torch.Tensor]]
THRESHOLD = 0.7  # of the mean magnitude; the best for normal and uniform weights is close to it


def ternary(weight: torch.Tensor, axes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(levels -1, 0 and 1, shaped like the weight; scale, of size 1 along `axes`, 0 where all is 0)."""
    magnitude = weight.abs()
    kept = magnitude > THRESHOLD * magnitude.mean(axes, keepdim=True)
    scale = (magnitude * kept).sum(axes, keepdim=True) / kept.sum(axes, keepdim=True).clamp(min=1)
    return weight.sign() * kept, scale


def binary(weight: torch.Tensor, axes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(levels -1 and 1, shaped like the weight, 1 for 0; scale, of size 1 along `axes`)."""
    one = torch.ones((), dtype=weight.dtype)
    return torch.where(weight < 0, -one, one), weight.abs().mean(axes, keepdim=True)


def straight_through(levels: Levels) -> Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]:
    """levels * scale of a weight; backward the gradient goes to the weight as it is (Bengio et al., 2013,
    arXiv:1308.3432)."""

    def learned(weight: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
        signs, scale = levels(weight.detach(), axes)
        return weight + (signs * scale - weight).detach()

    return learned

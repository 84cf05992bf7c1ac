"""Weights of two or three levels: what each number becomes, with a scale to a row or to the whole.

Ternary: TWN (Li, Zhang and Liu, 2016, arXiv:1605.04711, section 2.2): with d = 0.7 mean|w|, numbers within d
of 0 become 0, the others a or -a, where a is the mean magnitude of those others. Binary: BWN of XNOR-Net
(Rastegari et al., 2016, arXiv:1603.05279, section 3.1): sign(w) mean|w|, which is the nearest in squares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

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

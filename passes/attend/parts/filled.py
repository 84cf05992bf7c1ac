"""Whole blocks of places."""

from __future__ import annotations

import torch
from torch import Tensor


def filled(x: Tensor, axis: int, blocks: int, size: int) -> Tensor:
    """With zeros after its end, to so many whole blocks."""
    shape = list(x.shape)
    shape[axis] = blocks * size - shape[axis]
    return torch.cat([x, x.new_zeros(shape)], axis)

"""Sums over earlier keys in constant state, chunk by chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from .filled import filled


def look_back(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """sum over j <= i of (q_i k_j) v_j, linear in the length: a masked product within each chunk, and running
    sums of k^T v of the chunks before it (Katharopoulos et al., 2020, arXiv:2006.16236, section 3.3).

    Args:
        q, k: (batch, heads, length, features). v: (batch, heads, length, value_dim).

    Returns:
        (batch, heads, length, value_dim).
    """
    length = q.shape[2]
    count = (length + chunk - 1) // chunk
    q, k, v = (filled(x, 2, count, chunk).unflatten(2, (count, chunk)) for x in (q, k, v))
    sums = (k.transpose(3, 4) @ v).cumsum(2)
    before = torch.cat([torch.zeros_like(sums[:, :, :1]), sums[:, :, :-1]], 2)
    within = (q @ k.transpose(3, 4)).tril()
    return (within @ v + q @ before).flatten(2, 3)[:, :, :length]

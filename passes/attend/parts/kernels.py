"""Attention whose weights are products of features: what is the same for all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Heads
from .recurrence import look_back

_LEAST = 1e-30  # of a sum of weights; where a query sees no key, it gets zeros, and gradients stay finite


def weighed(q: Tensor, k: Tensor, heads: Heads, chunk: int) -> Tensor:
    """sum of (q_i k_j) v_j over the keys j that i sees, divided by the sum of q_i k_j.

    Args:
        q, k: (batch, heads, length, features), none negative.
        chunk: places that are taken at once where they look back only.
    """
    if heads.keep is not None:
        k = k * heads.keep[:, None, :, None].to(k.dtype)
    v = functional.pad(heads.v, (0, 1), value=1.0)  # what multiplies the ones is the sum of weights
    both = look_back(q, k, v, chunk) if heads.causal else q @ (k.transpose(2, 3) @ v)
    total = both[..., -1:]
    return both[..., :-1] / torch.where(total > _LEAST, total, 1.0)

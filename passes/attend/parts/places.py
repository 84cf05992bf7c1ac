"""Where a token stands among those of its text that are kept, whatever it is padded to."""

from __future__ import annotations

import torch
from torch import Tensor

from .kind import Heads


def places(heads: Heads) -> tuple[Tensor, Tensor]:
    """(int64 (batch, length), from 0; int64 (batch, 1), how many a text has). batch is 1 where all are kept.

    Where there is padding, its places are those of the last token before it, or 0.
    """
    if heads.keep is None:
        length = heads.q.shape[2]
        found = torch.arange(length, device=heads.q.device)[None]
        return found, found[:, -1:] + 1
    kept = heads.keep.to(torch.int64)
    return (kept.cumsum(1) - 1).clamp(min=0), kept.sum(1, keepdim=True)

"""A batch of one says nothing about others, and torch.export takes an axis of one for a fixed one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from .eager import Eager
from .trial import run

_LARGEST = 6  # inputs with a first axis of one, of which every choice is tried


def widened(eager: Eager, feed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The example with several rows where it has one, in as many inputs as the module takes that in.

    Returns: the example, and a reason where the module takes no more than one row.
    """
    single = [name for name, tensor in feed.items() if tensor.dim() and tensor.shape[0] == 1]
    if not single:
        return dict(feed), ""
    taken = {size for tensor in feed.values() for size in tensor.shape}
    rows = next(size for size in range(2, 100) if size not in taken)
    fewest = 1 if len(single) <= _LARGEST else len(single)
    for count in range(len(single), fewest - 1, -1):
        for chosen in combinations(single, count):
            wide = {n: torch.cat([t] * rows) if n in chosen else t for n, t in feed.items()}
            found = run(eager, list(wide.values()))
            if found and any(t.dim() and t.shape[0] == rows for t in found):
                return wide, ""
    return dict(feed), "the module takes no second row"

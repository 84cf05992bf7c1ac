"""As much calibration text as is wanted, from all over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.program import Program
from ..manager.contract import Feed
from .batches import bucketed
from .calibration import check

ROWS = 32  # to a batch


def some(feeds: Sequence[Feed], tokens: int) -> list[Feed]:
    """Feeds spread evenly over all, with about so many elements of their largest input.

    Args:
        feeds: may be made when asked for; only those that are taken are.
    """
    if not feeds:
        return []
    one = max((array.size for array in feeds[len(feeds) // 2].values()), default=1)
    count = min(len(feeds), max(1, -(-tokens // max(1, one))))
    return [feeds[number * len(feeds) // count] for number in range(count)]


def batches(program: Program, feeds: Sequence[Feed], tokens: int, seed: int) -> list[Feed]:
    """Some of the feeds, their rows in batches of like length where they can be; in random order, so that the
    first few are like all of them.

    Raises:
        DataError: the data are empty, constant, NaN, or do not fit the program.
    """
    chosen = some(feeds, tokens)
    check(program, chosen)
    made = bucketed(program, chosen, ROWS, seed)
    return [made[number] for number in np.random.default_rng(seed).permutation(len(made))]

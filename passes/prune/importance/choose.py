"""Which units go, by their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

MOVEMENT = ("movement", "movement-soft")
Method = Literal["magnitude", "taylor", "fisher", "fisher-block", "activation", "random"]
FREE = ("magnitude", "random")  # of data
Scope = Literal["model", "layer"]


def lowest(scores: Sequence[np.ndarray], ratio: float, scope: Scope) -> list[list[int]]:
    """For each block the units that go, ascending: a share of all units, or of each block's.

    Args:
        scores: (units,) a block. Among equals the first go.
        scope: "model" compares units of all blocks, so that some may lose all and some none.
    """
    if scope == "layer":
        return [
            sorted(map(int, np.argsort(each, kind="stable")[: round(ratio * len(each))])) for each in scores
        ]
    order = np.argsort(np.concatenate([np.empty(0), *scores]), kind="stable")
    gone = np.zeros(len(order), dtype=bool)
    gone[order[: round(ratio * len(order))]] = True
    edges = np.cumsum([len(each) for each in scores])[:-1]
    return [list(map(int, np.flatnonzero(part))) for part in np.split(gone, edges)]


def rounded(gone: Sequence[int], scores: np.ndarray, multiple: int) -> list[int]:
    """As many of these units less as make what is left a multiple; all of them where all go.

    The dearest stay.
    """
    size, left = len(scores), len(scores) - len(gone)
    kept = min(size, -(-left // multiple) * multiple)
    cheapest = sorted(gone, key=lambda unit: (scores[unit], unit))
    return sorted(cheapest[: size - kept])

"""As much calibration text as is wanted, from all over the data."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Feed


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

"""A sample of whole groups: a query's rows are all kept, or none."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def sample_groups(rows: Iterable[T], group: Callable[[T], str], most: int, seed: int) -> tuple[list[T], int]:
    """Rows of a uniform sample of groups, in order, and how many rows there were, in one pass.

    Groups are drawn by a hash of their name: those of the lowest stay while their rows are at most `most`
    (bottom-k sampling; Cohen and Kaplan, 2007). One group at least stays, cut to `most`.
    """
    kept: dict[str, list[tuple[int, T]]] = {}
    highest: list[tuple[int, str]] = []  # a heap of what stays, the highest hash first
    limit, count, total = 2**64, 0, 0
    for total, row in enumerate(rows, 1):
        name = group(row)
        if name not in kept:
            draw = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")
            if draw >= limit:
                continue
            kept[name] = []
            heapq.heappush(highest, (-draw, name))
        kept[name].append((total, row))
        count += 1
        while count > most and len(kept) > 1:
            limit, gone = heapq.heappop(highest)
            limit = -limit
            count -= len(kept.pop(gone))
    chosen = sorted((each for rows in kept.values() for each in rows), key=lambda each: each[0])
    return [row for _, row in chosen][:most], total

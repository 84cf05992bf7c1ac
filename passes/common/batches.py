"""Feeds as batches of rows of like length, so that padding is not computed, from all over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.program import Program
from ...ir.spec import MASKS
from ..manager.contract import Feed
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


HELD_OUT, MOST = 10, 16  # one batch of ten is kept from training, where there are as many, and 16 at most


def bucketed(program: Program, feeds: Sequence[Feed], size: int, seed: int = 0) -> list[Feed]:
    """The rows of all feeds in batches of `size`, shortest first, each padded to its longest.

    Rows of one length are put together in random order. Feeds are given back as they are where the
    program's inputs are not all (batch, length) with both sizes free, or have no mask to tell padding by.
    Arrays that are no input (labels) go with their rows.
    """
    mask = next((spec for spec in program.inputs if spec.role == "attention_mask"), None)
    if mask is None or any(spec.shape != mask.shape for spec in program.inputs):
        return list(feeds)
    if len(mask.shape) != 2 or not all(isinstance(dim, str) for dim in mask.shape):
        return list(feeds)
    rows = []
    for feed in feeds:
        width = feed[mask.name].shape[1]
        for number, keep in enumerate(mask.kept(feed[mask.name])):
            length = int(np.flatnonzero(keep)[-1]) + 1 if keep.any() else 1
            row = {name: array[number] for name, array in feed.items()}
            long = {name for name, array in row.items() if array.shape[:1] == (width,)}
            rows.append((length, {name: a[:length] if name in long else a for name, a in row.items()}))
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = sorted((rows[i] for i in order), key=lambda row: row[0])
    fills = _fills(program)
    return [
        _padded([row for _, row in chosen[start : start + size]], fills)
        for start in range(0, len(chosen), size)
    ]


def parted(batches: Sequence[Feed]) -> tuple[list[Feed], list[Feed]]:
    """(to train on, held out): some of all lengths."""
    count = min(MOST, len(batches) // HELD_OUT)
    chosen = {(2 * i + 1) * len(batches) // (2 * count) for i in range(count)}
    held = [batch for i, batch in enumerate(batches) if i in chosen]
    return [batch for i, batch in enumerate(batches) if i not in chosen], held


def _fills(program: Program) -> dict[str, int]:
    """What padding holds; 0 where it is not said."""
    pad = int(program.info.get("pad_token_id") or 0)
    found = {spec.name: pad for spec in program.inputs if spec.role == "token_ids" and pad < (spec.high or 0)}
    hidden = {spec.name: 1 for spec in program.inputs if spec.role in MASKS and spec.hidden}
    return {**found, **hidden, "labels": -100}


def _padded(rows: Sequence[Feed], fills: dict[str, int]) -> Feed:
    """Rows put together, each padded on its first axis to the longest."""
    batch = {}
    for name, first in rows[0].items():
        arrays = [row[name] for row in rows]
        if first.ndim == 0:
            batch[name] = np.stack(arrays)
            continue
        longest = max(len(array) for array in arrays)
        batch[name] = np.full((len(rows), longest, *first.shape[1:]), fills.get(name, 0), first.dtype)
        for number, array in enumerate(arrays):
            batch[name][number, : len(array)] = array
    return batch

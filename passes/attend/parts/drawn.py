"""Blocks of keys drawn at random for each block of queries."""

from __future__ import annotations

import torch
from torch import Tensor

from .site import Site

ROWS = 1024  # of blocks of queries that are drawn for; behind them the same are drawn again, as far on


def drawn(site: Site, block: int, count: int, generator: torch.Generator) -> Tensor:
    """int64 (blocks of queries, count): no block twice, the query's own where there are no more.

    A model that looks back draws among earlier blocks. Others draw from a stretch that begins with the text
    and is the next power of two long, so that what is drawn does not depend on the length of the text; of
    what lies beyond its end nothing is seen.
    """
    rows = ROWS if site.longest is None else min(ROWS, -(-site.longest // block))
    found = torch.arange(rows)[:, None].repeat(1, count)
    for row in range(rows):
        within = row if site.causal else max(1 << row.bit_length(), count + 1)
        others = torch.randperm(within, generator=generator)
        others = others[others != row][:count]
        found[row, : len(others)] = others
    return found


def seen(choices: Tensor, block: int, i: Tensor, j: Tensor) -> Tensor:
    """bool (queries, keys): whether a key is in the query's own block or one drawn for it."""
    row, column = i // block, j // block
    turn = row // len(choices) * len(choices)
    mine = choices[(row % len(choices))[:, 0]]
    found = row == column
    for number in range(choices.shape[1]):
        found = found | (mine[:, number : number + 1] + turn == column)
    return found

"""The blocks of feed-forwards and projections, fitted to what an fx program gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.program import Program
from ...common.fx_weights import Matrix
from ...manager.contract import Feed
from ..low_rank.layers import grams
from .blocks import Seen, even, neurons
from .sites import Site
from .write import Block


@dataclass(frozen=True)
class Cut:
    """blocks: for each piece of rows of a site's products, one a group. kept: for each product, the share of
    its squared results on the texts that its blocks give."""

    blocks: list[list[Block]]
    kept: list[float]


def cuts(
    program: Program, found: Sequence[Site], feeds: Sequence[Feed], groups: int, damping: float
) -> Iterator[Cut]:
    """Those of sites, in their order. A site's first products read one value, a feed-forward's last another.

    Args:
        feeds: without any, all that a product may be given counts alike.
    """
    firsts: list[Matrix] = []
    for site in found:
        firsts += [site.products[0][0], *([site.products[-1][0]] if site.feed_forward else [])]
    moments = grams(program, firsts, feeds)
    for site in found:
        seen = [_seen(site, 0, next(moments), damping)] * len(site.products)
        if site.feed_forward:
            seen[-1] = _seen(site, -1, next(moments), damping)
        yield _cut(site, seen, groups)


def _seen(site: Site, place: int, gram: np.ndarray | None, damping: float) -> Seen:
    """Of a product, and of those that read what it does."""
    alike = range(len(site.products) - 1) if site.feed_forward and place == 0 else [place]
    biased = all(use[number].bias is not None for use in site.uses for number in alike)
    return Seen.of(gram, site.products[place][0].columns, biased, damping)


def _cut(site: Site, seen: Sequence[Seen], groups: int) -> Cut:
    weights = [matrix.numbers().double().numpy() for matrix, _ in site.products]
    order = None  # of the neurons
    if site.feed_forward:
        pairs = zip(weights[:-1], site.products[:-1], strict=True)
        ups = [weight[start:stop] for weight, (_, pieces) in pairs for start, stop in pieces]
        order = neurons(ups, weights[-1], seen[0].moments.diagonal(), seen[-1].moments.diagonal(), groups)
    blocks: list[list[Block]] = []
    kept = []
    for number, (weight, (_, pieces), one) in enumerate(zip(weights, site.products, seen, strict=True)):
        down = number == len(weights) - 1
        columns = even(weight.shape[1], groups) if order is None or not down else order
        lost = 0.0
        for start, stop in pieces:
            rows = start + (even(stop - start, groups) if order is None or down else order)
            made = [_block(weight, mine, into, one) for mine, into in zip(rows, columns, strict=True)]
            blocks.append([block for block, _ in made])
            lost += sum(away for _, away in made)
        used = np.concatenate([weight[start:stop] for start, stop in pieces])
        kept.append(1 - lost / (one.energy(used) or 1.0))
    return Cut(blocks, kept)


def _block(weight: np.ndarray, rows: np.ndarray, columns: np.ndarray, seen: Seen) -> tuple[Block, float]:
    """And the squared distance of what it gives from what is due, over what was seen."""
    made, shift = seen.block(weight[rows], columns)
    away = weight[rows].copy()
    away[:, columns] -= made
    return Block(rows, made, shift), seen.energy(away)

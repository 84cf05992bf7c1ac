"""How far a kind of attention is from the one that it stands for, on texts."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ....ir.program import Program
from ...common.outputs import computed, rows
from ...manager.contract import Feed
from .site import Site


def errors(program: Program, pairs: Sequence[tuple[Site, Node]], feeds: Sequence[Feed]) -> list[float]:
    """The squared distance of each new node's values from the site's own, relative to their squared size,
    both given what the full attentions before them give. Padding is left out."""
    nodes = [node for site, new in pairs for node in (site.end, new)]
    away, size = [0.0] * len(pairs), [0.0] * len(pairs)
    for feed in feeds:
        found = computed(program, nodes, feed)
        for number in range(len(pairs)):
            old, new = (rows(program, feed, x).double() for x in found[2 * number : 2 * number + 2])
            away[number] += float((old - new).square().sum())
            size[number] += float(old.square().sum())
    return [a / s if s else 0.0 for a, s in zip(away, size, strict=True)]

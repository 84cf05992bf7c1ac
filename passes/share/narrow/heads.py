"""Heads of fewer features: sizes that operators state between projections and what joins the heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.program import Program
from ....ir.values import Value
from ...prune.surgery.cut import cut_groups
from .sites import Site


def cut_heads(program: Program, chosen: Sequence[Site], width: int) -> list[dict[Value, np.ndarray]]:
    """Takes places out of the heads of some layers, in place: the last ones of each.

    Returns:
        For each layer, by what a projection gives, the positions of its features that are left.

    Raises:
        PassError: an operator states sizes in a way that is not known, named.
    """
    groups = {id(group): group for site in chosen for group in site.cut}
    kept, going = [], {}
    for site in chosen:
        attention = site.attention
        size = width // attention.heads
        left: dict[Value, np.ndarray] = {}
        for side in (attention.q, attention.k, attention.v):
            assert side is not None
            gone = [
                member.map.indices(range(size, group.size))
                for group in site.cut
                for member in group.members
                if member.value == side.root and member.axis == len(side.root.shape or ()) - 1
            ]
            whole = np.arange(side.out_features)
            left[side.root] = np.setdiff1d(whole, np.concatenate(gone)) if gone else whole
        kept.append(left)
        going.update({id(group): range(size, group.size) for group in site.cut})
    cut_groups(program.graph, [(groups[key], indices) for key, indices in going.items()])
    return kept

"""Heads of fewer features: sizes that operators state between projections and what joins the heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.blocks.base import Attention
from ....ir.ops.coupling import Group
from ....ir.program import Program
from ....ir.values import Value
from ...prune.surgery.cut import cut_groups


def coupled_heads(attention: Attention, coupled: Sequence[Group], size: int) -> tuple[Group, ...] | str:
    """The groups of the places in a head, of queries and keys and of values, or why they cannot be fewer.

    Args:
        size: how many are to be left.
    """
    if size == attention.head_dim:
        return ()
    found: dict[int, Group] = {}
    for linear, features in (
        (attention.q, attention.q_features),
        (attention.k, attention.k_features),
        (attention.v, attention.v_features),
    ):
        assert linear is not None
        assert features is not None
        one = _places(linear.root, features, coupled)
        if one is None or one.fixed:
            why = f" ({one.fixed})" if one is not None else ""
            return f"the head size of {linear.root.name} cannot change{why}"
        found[id(one)] = one
    return tuple(found.values())


def _places(root: Value, features: np.ndarray, coupled: Sequence[Group]) -> Group | None:
    """The group whose unit j is the j-th feature of each head."""
    last = len(root.shape or ()) - 1
    for group in coupled:
        for member in group.members:
            here = member.value == root and member.axis == last and group.size == features.shape[1]
            if here and all(
                set(features[:, j].tolist()) <= set(member.map.indices([j]).tolist())
                for j in range(group.size)
            ):
                return group
    return None


def cut_heads(
    program: Program, chosen: Sequence[tuple[Attention, Sequence[Group]]], width: int
) -> list[dict[Value, np.ndarray]]:
    """Takes places out of the heads of some attentions, in place: the last ones of each.

    Args:
        chosen: attentions and `coupled_heads` of each. width: of all heads of one, afterwards.

    Returns:
        For each, by what a projection gives, the positions of its features that are left.

    Raises:
        PassError: an operator states sizes in a way that is not known, named.
    """
    groups: dict[int, tuple[Group, range]] = {}
    kept = []
    for attention, coupled in chosen:
        size = width // attention.heads
        left: dict[Value, np.ndarray] = {}
        for side in (attention.q, attention.k, attention.v):
            assert side is not None
            gone = [
                member.map.indices(range(size, group.size))
                for group in coupled
                for member in group.members
                if member.value == side.root and member.axis == len(side.root.shape or ()) - 1
            ]
            whole = np.arange(side.out_features)
            left[side.root] = np.setdiff1d(whole, np.concatenate(gone)) if gone else whole
        kept.append(left)
        groups.update({id(group): (group, range(size, group.size)) for group in coupled})
    cut_groups(program.graph, groups.values())
    return kept

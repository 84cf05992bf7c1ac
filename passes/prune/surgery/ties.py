"""Groups of axes that share a tensor: where two nodes read one parameter, its units go from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ....ir.ops.coupling import Group
from ...common.memory import memory

Reading = dict[tuple[int, Any], int]  # (size, map) of every group that an axis is made of -> the group


def tied(groups: Sequence[Group]) -> dict[int, tuple[Group, ...]]:
    """For each group, by its id, all that must lose the same units, itself included, in the order given.

    Where nodes read one tensor's axis as different units, none of them can go: those groups come out fixed.
    """
    readings: dict[Any, dict[Any, Reading]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            if member.value.tensor is not None:
                nodes = readings.setdefault((memory(member.value.tensor), member.axis), {})
                nodes.setdefault(member.value.native, {})[group.size, member.map] = number
    parent = list(range(len(groups)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    fixed: dict[int, str] = {}
    for nodes in readings.values():
        first, *others = nodes.values()
        for other in others:
            if other.keys() == first.keys():
                for place, number in first.items():
                    parent[root(other[place])] = root(number)
            else:
                names = " and ".join(node.name for node in list(nodes)[:2])
                fixed.update(
                    dict.fromkeys((*first.values(), *other.values()), f"{names} read it differently")
                )
    found: dict[int, list[Group]] = {}
    for number, group in enumerate(groups):
        together = found.setdefault(root(number), [])
        together.append(replace(group, fixed=group.fixed or fixed[number]) if number in fixed else group)
    ties = {number: tuple(together) for number, together in found.items()}
    return {id(group): ties[root(number)] for number, group in enumerate(groups)}

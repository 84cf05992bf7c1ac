"""Which axes of which tensors must change together: heads, FFN width, hidden width, vocabulary.

Every operator says which of its axes are the same (the column `couple` of table.py), and unification
(axes.py) closes that into groups. A group's members tell, for every tensor it runs through, which positions
along which axis belong to each of its units: identity, blocks of a head's rows, repeats for grouped queries,
offsets in a fused projection. An operator without a rule is refused by name; guessing that it is
element-wise would prune wrongly. Groups closed over edges with index maps are Torch-Pruning's idea
(Fang et al., arXiv:2301.12900).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..values import GraphValue, GraphView, Value
from .axes import LARGEST, Atom, IndexMap, leaves
from .coupled import Coupled
from .table import OPERATORS

KINDS = ("vocabulary", "hidden", "heads", "head_dim", "width")  # the first hint that an axis got counts


@dataclass(frozen=True)
class Member:
    """One place that a group runs through: positions map.indices([u]) along `axis` of `value` are unit u's.

    Where heads are merged with the batch, map.static is False: the positions depend on the call.
    """

    value: GraphValue
    axis: int
    map: IndexMap


@dataclass(frozen=True)
class Group:
    """Units that exist together or not at all.

    size: how many. members: constants and computed values alike, in the view's order. Among the computed
    ones are the operators that carry sizes as attributes: reshape, split, expand, slice, layer_norm, and
    sdpa, whose scale follows from head_dim unless it is given.
    kind: "vocabulary", "heads", "head_dim", "hidden", "width" or "other", a hint.
    fixed: why no unit can go ("an axis of the input 'pixel_values'"), empty when units can be removed.
    """

    size: int
    members: tuple[Member, ...]
    kind: str
    fixed: str

    def removed(self, units: Sequence[int]) -> dict[tuple[GraphValue, int], np.ndarray]:
        """For every (value, axis) of static size, the positions that go when these units go, ascending."""
        found: dict[tuple[GraphValue, int], list[np.ndarray]] = {}
        for member in self.members:
            if member.map.static:
                found.setdefault((member.value, member.axis), []).append(member.map.indices(units))
        return {place: np.unique(np.concatenate(parts)) for place, parts in found.items()}


def groups(view: GraphView) -> list[Group]:
    """Every group of more than one unit, in the order of its first member."""
    coupled = coupled_axes(view)
    kinds = _kinds(coupled)
    members: dict[Atom, list[Member]] = {}
    for value in view:
        for axis, term in enumerate(coupled.axes[value]):
            for atom, where in leaves(term) if term is not None else ():
                if 1 < atom.size <= LARGEST:
                    members.setdefault(atom, []).append(Member(value, axis, where))
    return [Group(a.size, tuple(found), kinds.get(a, "other"), a.fixed) for a, found in members.items()]


def groups_of(found: Iterable[Group], value: Value, axis: int) -> list[Group]:
    """The groups, among those found, that an axis is made of: two for one of heads x head_dim."""
    return [g for g in found if any(m.axis == axis and m.value == value for m in g.members)]


def coupled_axes(view: GraphView) -> Coupled:
    """The axes of every value, unified as the operators ask; what one without a rule touches is fixed."""
    coupled = Coupled()
    for value in view:
        row = OPERATORS.get(value.op)
        coupled.enter(value)
        unknown = [v for v in (value, *value.inputs) if v is not None and v.shape is None]
        if row is None or row.couple is None:
            coupled.freeze(value, f"which axes the operator {value.op} ({value.name}) couples is not known")
        elif unknown:
            coupled.freeze(value, f"{unknown[0].name} has no known shape")
        else:
            row.couple(coupled, value)
    returned = set(view.outputs)
    for value in view:
        if not value.users and value not in returned and 0 not in (value.shape or ()):
            coupled.freeze_axes(value, range(len(coupled.axes[value])), "no value depends on it")
    for value in view.outputs:
        coupled.freeze_axes(value, range(len(coupled.axes[value])), f"an axis of the output {value.name}")
    return coupled


def _kinds(coupled: Coupled) -> dict[Atom, str]:
    kinds: dict[Atom, str] = {}
    for kind in KINDS:
        for term in (t for t, k in coupled.hints if k == kind):
            for atom, _ in leaves(term):
                kinds.setdefault(atom, kind)
    return kinds

"""Where each use of a packed weight begins and ends in a graph: found by what derives from what.

A pass names what it stores in the place of a weight NAME.something. Everything computed from constants alone
is followed back to these; a use begins where that meets an activation or ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.program import Program
from ...common.piece import read
from ..codes.stored import StoredWeight, WeightUse, find
from ..fit.rescale import factors
from .layer import origin

_NOTHING: frozenset[str] = frozenset()
_Made = Mapping[ir.Value, frozenset[str]]


@dataclass(frozen=True, eq=False)
class PackedUse:
    """One use of a weight that a program stores packed.

    stored, use: of the float program. factors: what the pass multiplied the weight by before it packed it,
    (axis of `matrix`, one for each index). plain: the names that stand for the weight in the float program.
    x: what enters beside the weight, the activation or ids; None for a whole table.
    y: what the use gives, a bias included where no value stands before it; where `whole`, the decoded weight
    itself, because x is not all that the use depends on.
    nodes: all that make y of x and weights, in order. reading: names of what is made of the weight alone.
    """

    stored: StoredWeight
    use: WeightUse
    factors: tuple[tuple[int, np.ndarray], ...]
    plain: frozenset[str]
    x: ir.Value | None
    y: ir.Value
    whole: bool
    nodes: tuple[ir.Node, ...]
    reading: frozenset[str]

    def matrix(self) -> np.ndarray:
        """The float weight that was packed, float32 (out, in) or (rows, features)."""
        matrix = self.stored.matrix()
        for axis, by in self.factors:
            matrix = matrix * (by[:, None] if axis == 0 else by)
        return matrix


def packed_uses(before: Program, after: Program, but: Collection[str] = ()) -> list[PackedUse]:
    """Uses of the weights of `before` that `after` has in another form, by weight; those of an id or an
    activation that is constant itself are left out.

    Args:
        but: names of weights to leave out.
    """
    kept = after.graph.graph.initializers
    gone = {one.name: one for one in find(before)[0] if one.name not in kept and one.name not in but}
    if not gone:
        return []
    old = before.graph.graph.initializers

    def label(name: str) -> frozenset[str]:
        if name.startswith("decode."):  # tables and shapes that all weights share
            return _NOTHING
        source = None if name in old else origin(name, gone)
        return frozenset({source or name})

    made = _made(after.graph.graph, label)
    plain = _made(before.graph.graph, lambda name: frozenset({name}))
    place = {node: number for number, node in enumerate(after.graph.graph)}
    there = {str(v.name) for node in before.graph.graph for v in node.outputs}
    new = [node for node in place if str(node.outputs[0].name) not in there]
    named = {str(v.name): v for v in after.graph.graph.inputs}
    named |= {str(v.name): v for node in place for v in node.outputs}
    found = []
    for name, stored in gone.items():
        multiplied = tuple(
            (axis if stored.rows else 1 - axis, by)
            for weight, axis, by in factors(after.graph)[len(factors(before.graph)) :]
            if weight == name
        )
        names = [frozenset(str(v.name) for v, of in all_.items() if name in of) for all_ in (plain, made)]
        for use in stored.uses:
            ends = _whole(use, named, made, name) if use.kind in ("attention", "convolution", "table") else (
                _ends(use, named, new, place, made, name))  # fmt: skip
            if ends is None:
                continue
            x, y, whole = ends
            nodes = _between(y, None if whole else x, place)
            if nodes is not None:
                found.append(PackedUse(stored, use, multiplied, names[0], x, y, whole, nodes, names[1]))
    return found


_Ends = tuple[ir.Value | None, ir.Value, bool]


def _ends(
    use: WeightUse,
    named: Mapping[str, ir.Value],
    new: Iterable[ir.Node],
    place: Mapping[ir.Node, int],
    made: _Made,
    name: str,
) -> _Ends | None:
    root = str(use.node.outputs[0].name)
    y = named.get(root) or _last(root, new, made, name)
    if y is None:
        return None
    if use.kind == "lookup":  # ids are no pass's to replace
        x = named.get(str(use.other.name)) if use.other is not None else None
        x = None if x in made else x
    else:  # what the weight meets: x, and perhaps what is made of it; x comes first
        entering = _entering(y, made, name)
        first = lambda v: -1 if (node := v.producer()) is None else place[node]
        x = min(entering, key=first, default=None)
    return None if x is None else (x, y, False)


def _whole(use: WeightUse, named: Mapping[str, ir.Value], made: _Made, name: str) -> _Ends | None:
    root = named.get(str(use.node.outputs[0].name))
    node = None if root is None else root.producer()
    weight = None if node is None else next((v for v in read(node) if name in made.get(v, ())), None)
    if node is None or weight is None:
        return None
    return None if use.kind == "table" else node.inputs[0], weight, True


def _made(graph: ir.Graph, label: Callable[[str], frozenset[str]]) -> dict[ir.Value, frozenset[str]]:
    """For each value that is made of constants alone, the labels of those."""
    inputs = set(graph.inputs)
    found = {v: label(str(v.name)) for v in graph.initializers.values() if v not in inputs}
    for node in graph:
        entering = read(node)
        if all(v in found for v in entering):
            found |= dict.fromkeys(node.outputs, _NOTHING.union(*(found[v] for v in entering)))
    return found


def _last(root: str, new: Iterable[ir.Node], made: _Made, name: str) -> ir.Value | None:
    """The last new value, of those named after the one replaced, that no constant but the weight makes."""
    reached: dict[ir.Value, None] = {}
    for node in new:
        y, entering = node.outputs[0], read(node)
        if not str(y.name).startswith(f"{root}.") or y in made:
            continue
        of = _NOTHING.union(*(made.get(v, _NOTHING) for v in entering))
        if of == {name} or (not of and any(v in reached for v in entering)):
            reached[y] = None
    return next(reversed(reached), None)


def _entering(y: ir.Value, made: _Made, name: str) -> set[ir.Value]:
    """What the nodes behind y that read the weight take beside it."""
    found: set[ir.Value] = set()
    stack, seen = [y], {y}
    while stack:
        node = stack.pop().producer()
        entering = [] if node is None else read(node)
        reads = any(name in made.get(v, ()) for v in entering)
        for value in (v for v in entering if v not in made):
            if reads:
                found.add(value)
            elif value not in seen:
                seen.add(value)
                stack.append(value)
    return found


def _between(y: ir.Value, x: ir.Value | None, place: Mapping[ir.Node, int]) -> tuple[ir.Node, ...] | None:
    """The nodes that make y of x and constants; None if something else enters."""
    found: set[ir.Node] = set()
    stack = [y]
    while stack:
        value = stack.pop()
        node = value.producer()
        if value is x or node in found:
            continue
        if node is None:
            if value.const_value is None:
                return None
            continue
        found.add(node)
        stack.extend(read(node))
    return tuple(sorted(found, key=lambda node: place[node]))

"""Residual streams made ready for another basis: what needs their own channels gets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Norm
from ....ir.blocks.stream import streams
from ....ir.fx.graph import add_tensor, call
from ....ir.ops.coupling import Group, groups, groups_of
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from .basis import Basis, basis

ATEN = torch.ops.aten
UP, DOWN = "restore.weight", "narrow.weight"


@dataclass(frozen=True, eq=False)
class Rotatable:
    """A stream between layers that can be held in another basis. norms: over it, in graph order. sites: nodes
    that say what it holds: of norms, of layers' ends where there are none."""

    group: Group
    norms: tuple[Norm, ...]
    sites: tuple[Node, ...]

    @property
    def width(self) -> int:
        return self.group.size


def rotatable(program: Program) -> tuple[list[Rotatable], list[str]]:
    """The streams of an fx program, and a sentence for each that has to stay, which changes the program in
    place: a product with the identity stands behind a stream wherever something needs its own channels, and
    before it wherever something has them. Outputs are the same.
    """
    tried: dict[str, str] = {}
    while True:
        found, notes, edges = _looked_at(program, tried)
        if edges is None:
            return found, notes
        _insert(program, edges)
        tried[edges.exit] = ""


@dataclass(frozen=True)
class _Edges:
    exit: str
    found: Basis
    outputs: tuple[Value, ...]


def _looked_at(program: Program, tried: dict[str, str]) -> tuple[list[Rotatable], list[str], _Edges | None]:
    """Streams by now, or the edges of the first that has some and was not tried."""
    graph = view(program)
    blocks = recognise(graph)
    coupled = groups(graph)
    found: dict[int, Rotatable] = {}
    notes: dict[str, None] = {}
    layers = [layer for stream in streams(graph, blocks)[0] for layer in stream.layers]
    for layer in layers:
        value, last = layer.exit, len(layer.exit.shape or ()) - 1
        along = groups_of(coupled, value, last)
        size = value.shape[last] if value.shape else None
        if len(along) != 1 or along[0].size != size:
            notes[f"the width of {value.name} stays: its channels are not of one kind"] = None
            continue
        if id(along[0]) in found:
            continue
        roles = basis(along[0], blocks)
        if isinstance(roles, str):
            notes[f"the width of {value.name} stays: {roles}"] = None
            continue
        outputs = tuple(v for v in dict.fromkeys(graph.outputs) if roles.role.get(v) == "rotated")
        if roles.up or roles.down or outputs:
            if value.name not in tried:
                return [], [], _Edges(value.name, roles, outputs)
            other = (roles.up or roles.down or [(outputs[0], outputs[0])])[0]
            notes[f"the width of {value.name} stays: {other[1].name} needs its own channels"] = None
        elif along[0].fixed:
            notes[f"the width of {value.name} stays: {along[0].fixed}"] = None
        else:
            norms = tuple(n for n in blocks.norm if roles.role.get(n.root) == "rotated")
            sites = [n.root for n in norms] or [one.exit for one in layers if one.exit in roles.axes]
            found[id(along[0])] = Rotatable(along[0], norms, tuple(site.native for site in sites))
    return list(found.values()), list(notes), None


def _insert(program: Program, edges: _Edges) -> None:
    gm = program.graph
    end = gm.graph.output_node()
    wanted: dict[tuple[Node, str], list[Node]] = {}
    for name, pairs in ((UP, edges.found.up), (DOWN, edges.found.down)):
        for value, user in pairs:
            wanted.setdefault((value.native, name), []).append(user.native)
    for output in edges.outputs:
        wanted.setdefault((output.native, UP), []).append(end)
    own = {each.native for each, role in edges.found.role.items() if role == "own"}
    for (node, name), users in wanted.items():
        if name == UP:  # those that read its sizes too, which a view does not show
            users = list(dict.fromkeys([*users, *(each for each in node.users if each in own)]))
        before = min(users)
        like = node.meta["val"]
        identity = torch.nn.Parameter(torch.eye(like.shape[-1], dtype=like.dtype))
        weight = add_tensor(gm, name, identity, before=before)
        product = call(gm.graph, ATEN.linear.default, node, weight, before=before)
        for reader in users:
            reader.replace_input_with(node, product)
    gm.recompile()

"""Layers under one position bias made independent: each reads its own selection of the bias's heads.

T5 (Raffel et al., 2020, arXiv:1910.10683) and MPNet add one learned bias to the scores of every layer, so
that a head could only go from all layers at once. Looked up by a list of heads of its own, which shrinks with
the layer's, a layer loses whichever heads it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.fx.graph import add_tensor, call, prune
from ....ir.ops.coupling import groups
from ....ir.program import Program
from ....ir.values import GraphValue, Value
from ....ir.view import view

aten = torch.ops.aten
_NAME = "heads_of_bias"


def separate(program: Program) -> None:
    """Inserts a selection of all heads wherever attention reads a value that has its heads and other layers'
    too, in place; gives the same outputs."""
    graph = view(program)
    contexts = [attention.context for attention in recognise(graph).attention]
    gm = program.graph
    for group in groups(graph):
        if group.kind != "heads":
            continue
        axes = {member.value: member.axis for member in group.members if member.value.op != "const"}
        for value, user in _edges(axes, contexts):
            if value.shape is None or value.shape[axes[value]] != group.size:
                continue  # they stand in one axis with the batch, as Bloom's do
            heads = add_tensor(gm, _NAME, torch.arange(group.size), before=user)
            chosen = call(gm.graph, aten.index_select.default, value.native, axes[value], heads, before=user)
            user.replace_input_with(value.native, chosen)
    gm.recompile()


def _edges(axes: dict[GraphValue, int], contexts: Sequence[Value]) -> Iterator[tuple[GraphValue, Node]]:
    """(value of several attentions, user of one) among the values along one group."""
    serves: dict[GraphValue, set[int]] = {}
    for value in reversed(axes):
        own = {number for number, context in enumerate(contexts) if context == value}
        serves[value] = own.union(*(serves.get(user, set()) for user in value.users))
    for value in axes:
        if len(serves[value]) > 1:
            yield from ((value, user.native) for user in value.users if len(serves.get(user, ())) == 1)


def rejoin(program: Program) -> None:
    """Removes the selections from a value that are all of everything."""
    selections: dict[Node, list[Node]] = {}
    for node in program.graph.graph.find_nodes(op="call_function", target=aten.index_select.default):
        source, _, heads = node.args
        if isinstance(heads, Node) and str(heads.target).startswith(_NAME):
            selections.setdefault(source, []).append(node)
    for source, nodes in selections.items():
        if all(node.meta["val"].shape == source.meta["val"].shape for node in nodes):
            for node in nodes:
                node.replace_all_uses_with(source)
    prune(program.graph)

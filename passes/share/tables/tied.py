"""Parameters of an fx program made one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.fx import GraphModule, Node

from ....ir.fx.graph import attribute, fake_tensor, prune, set_attribute
from ....ir.program import Program
from ...common.memory import memory

Start = Literal["first", "mean"]


def tie(program: Program, together: Sequence[Sequence[str]], start: Start) -> list[str]:
    """Lets what reads one of several parameters read the first of them, in place; the others vanish.

    Args:
        together: names of parameters of one shape; sets that have a parameter in common become one.
        start: what the one is at first: the first of them, or their mean, in float64.

    Returns:
        The names of those that stand for several now; none where all were one already.
    """
    gm, made = program.graph, []
    readers: dict[object, list[Node]] = {}
    for node in gm.graph.find_nodes(op="get_attr"):
        if isinstance(tensor := attribute(gm, str(node.target)), torch.Tensor):
            readers.setdefault(memory(tensor), []).append(node)
    for paths in _merged(together):
        different = {memory(tensor := attribute(gm, path)): tensor for path in paths}
        if len(different) == 1:
            continue
        tensors = list(different.values())
        if start == "mean":
            _replace(gm, paths[0], torch.stack([t.detach().double() for t in tensors]).mean(0))
        _read_one(gm, paths[0], [node for key in different for node in readers[key]])
        made.append(paths[0])
    prune(gm)
    return made


def _merged(together: Sequence[Sequence[str]]) -> list[list[str]]:
    sets: list[list[str]] = []
    for paths in together:
        meeting = [one for one in sets if set(one) & set(paths)]
        sets = [one for one in sets if one not in meeting]
        sets.append(list(dict.fromkeys([*(path for one in meeting for path in one), *paths])))
    return sets


def _replace(gm: GraphModule, path: str, tensor: torch.Tensor) -> None:
    old = attribute(gm, path)
    set_attribute(gm, path, torch.nn.Parameter(tensor.to(old.dtype), old.requires_grad))


def _read_one(gm: GraphModule, path: str, nodes: Sequence[Node]) -> None:
    """One node for all that read the parameter at a path, where the first of them stands."""
    order = {node: number for number, node in enumerate(gm.graph.nodes)}
    first, *others = sorted(nodes, key=order.__getitem__)
    first.target = path
    first.meta["val"] = fake_tensor(gm.graph, attribute(gm, path))
    for node in others:
        node.replace_all_uses_with(first)
        gm.graph.erase_node(node)

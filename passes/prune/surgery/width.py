"""The residual width: which positions of which tensors are one channel of the stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ....ir.blocks import recognise
from ....ir.fx.graph import add_tensor, call
from ....ir.ops.coupling import Group, groups, groups_of
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from .ties import tied

aten = torch.ops.aten
RESTORE = "restore.weight"


@dataclass(frozen=True, eq=False)
class Width:
    """The channels of one stream, or of several that share weights.

    channels: for each channel the groups, and the unit in them, that it is. sites: nodes of the norms that
    give channels, by name; of the residual sums where there are no norms.
    """

    channels: tuple[tuple[tuple[Group, ...], int], ...]
    sites: tuple[str, ...]

    def going(self, channels: Iterable[int]) -> list[tuple[Group, list[int]]]:
        """Units by group."""
        found: dict[int, tuple[Group, list[int]]] = {}
        for channel in channels:
            together, unit = self.channels[channel]
            for group in together:
                found.setdefault(id(group), (group, []))[1].append(unit)
        return list(found.values())


def widths(program: Program) -> tuple[list[Width], list[str]]:
    """Of an fx program's residual streams, and a sentence for each whose channels cannot go."""
    graph = view(program)
    blocks = recognise(graph)
    found = groups(graph)
    ties = tied(found)
    norms = [norm.root for norm in blocks.norm if norm.position != "inner"]
    sums = [residual.root for residual in blocks.residual]
    known: dict[int, Width] = {}
    notes: dict[str, None] = {}
    for residual in blocks.residual:
        value = residual.root
        along = groups_of(found, value, len(value.shape or ()) - 1)
        channels = _channels(value, along, ties)
        if isinstance(channels, str):
            notes[f"the width of {value.name} stays: {channels}"] = None
        elif id(channels[0][0]) not in known:
            members = {member.value for group in along for member in group.members}
            sites = [norm for norm in norms if norm in members] or [each for each in sums if each in members]
            names = tuple(site.native.name for site in sites)
            known[id(channels[0][0])] = Width(tuple(channels), names)
    return list(known.values()), list(notes)


def _channels(
    value: Value, along: Sequence[Group], ties: dict[int, tuple[Group, ...]]
) -> list[tuple[tuple[Group, ...], int]] | str:
    axis = len(value.shape or ()) - 1
    size = value.shape[axis] if value.shape else None
    placed: dict[int, tuple[tuple[Group, ...], int]] = {}
    for group in along:
        together = ties[id(group)]
        if reason := next((each.fixed for each in together if each.fixed), ""):
            return reason
        for member in group.members:
            if member.value == value and member.axis == axis:
                for unit in range(group.size):
                    for place in member.map.indices([unit]):
                        placed[int(place)] = (together, unit)
    channels = [placed[place] for place in sorted(placed)]
    if len(channels) != size or len({(id(together), unit) for together, unit in channels}) != size:
        return "its channels are not of one kind"
    return channels


def restore(program: Program) -> None:
    """Puts a product with the identity behind every output that is a stream's channels, in place.

    Once channels are gone it puts zeros in their places, so that outputs keep their shape; it is a parameter,
    so that training can do better than zeros.
    """
    graph = view(program)
    streams = {residual.root for residual in recognise(graph).residual}
    widths = [group for group in groups(graph) if streams & {member.value for member in group.members}]
    places = {(member.value, member.axis) for group in widths for member in group.members}
    gm = program.graph
    end = gm.graph.output_node()
    for output in dict.fromkeys(graph.outputs):
        last = len(output.shape or ()) - 1
        if (output, last) in places:
            value = output.native.meta["val"]
            identity = torch.nn.Parameter(torch.eye(value.shape[-1], dtype=value.dtype))
            weight = add_tensor(gm, RESTORE, identity, before=end)
            full = call(gm.graph, aten.linear.default, output.native, weight, before=end)
            end.replace_input_with(output.native, full)
    gm.recompile()

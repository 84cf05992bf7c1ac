"""A table of places made longer, by what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import Node

from ....ir.errors import PassError
from ....ir.fx.graph import attribute, replace_tensor
from ....ir.fx.mode import set_argument
from ....ir.program import Program
from .frequencies import turns
from .tables import Table
from .waves import frequencies_of, halved, waves

How = Literal["copy", "interpolate"]


@dataclass(frozen=True)
class Longer:
    """places: how many. how: learned ones go on. turned: of a table of sines and cosines that turns queries
    and keys, the frequencies for texts so many times as long."""

    places: int
    how: How
    turned: Callable[[Tensor, float], Tensor]

    def lengthen(self, program: Program, tables: Sequence[Table]) -> int:
        """Makes tables of a program longer, in place; returns how many.

        Raises:
            PassError: something else reads one, or it holds what can't be foretold.
        """
        by_name = sorted(tables, key=lambda table: str(table.tensor.target))
        count = 0
        for name, group in groupby(by_name, key=lambda table: str(table.tensor.target)):
            readers = list(group)
            _alone(program, name, readers)
            old = attribute(program.graph, name)
            sides = {table.axis: table.ahead for table in readers}
            new = self._made(old.detach(), sides, any(turns(table.reader) for table in readers))
            if new is None:
                raise PassError(f"{name} is taken by place, and what it holds at further ones can't be told")
            for node in dict.fromkeys(node for table in readers for node in table.path):
                _freed(node)
            keep = isinstance(old, nn.Parameter)
            new = nn.Parameter(new, old.requires_grad) if keep else new
            replace_tensor(program.graph, readers[0].tensor, new)
            count += 1
        return count

    def _made(self, old: Tensor, sides: Mapping[int, int], turning: bool) -> Tensor | None:
        """sides: the row of the first place, by axis."""
        if len(sides) > 1:
            if sorted(sides) != [old.dim() - 2, old.dim() - 1]:
                return None
            return banded(old, *(sides[axis] + self.places for axis in sorted(sides)))
        ((axis, ahead),) = sides.items()
        if old.dim() == 2 and axis == 0:
            known = old[ahead:]
            if (frequencies := frequencies_of(known)) is not None:
                if turning:
                    frequencies = self.turned(frequencies, self.places / len(known))
                return torch.cat([old[:ahead], waves(known, self.places, frequencies)])
            if halved(known):
                return None
        return longer(old, axis, ahead, self.places, self.how)


def _freed(node: Node) -> None:
    """A size that was written out in an expansion is the old one."""
    if str(node.target).startswith("aten.expand"):
        before = node.args[0].meta["val"].shape  # type: ignore[union-attr]
        sizes: list = list(node.args[1])  # type: ignore[arg-type]
        kept = [-1 if size == old else size for size, old in zip(sizes[-len(before) :], before, strict=True)]
        set_argument(node, "size", [*sizes[: -len(before)], *kept])


def _alone(program: Program, name: str, readers: Sequence[Table]) -> None:
    """Raises PassError where a tensor is read by more than what takes its rows."""
    known = {node for table in readers for node in (table.reader, *table.path)}
    for node in program.graph.graph.find_nodes(op="get_attr"):
        if node.target == name:
            for user in node.users:
                if user not in known:
                    raise PassError(f"{name} is taken by place, and {user.name} is computed from it too")


def longer(table: Tensor, axis: int, ahead: int, places: int, how: How) -> Tensor | None:
    """Rows for `places` places along an axis, behind those `ahead` of the first.

    Numbers that count the places go on counting, and those that are one number stay it. Of floats, "copy"
    repeats the places that there are (Beltagy et al., 2020, arXiv:2004.05150, section 5), "interpolate"
    stretches them.

    Returns:
        None for integers that do neither.
    """
    rows = table.movedim(axis, 0)
    front, known = rows[:ahead], rows[ahead:]
    if table.is_floating_point():
        made = _stretched(known, places) if how == "interpolate" else known[torch.arange(places) % len(known)]
    else:
        numbers = rows.to(torch.int64)
        steps = numbers[1:] - numbers[:-1]
        step = int(steps.flatten()[0]) if steps.numel() else 0
        if step not in (0, 1) or bool((steps != step).any()):
            return None
        ahead_of = torch.arange(places).reshape(-1, *[1] * (known.dim() - 1)) * step
        made = (numbers[ahead : ahead + 1] + ahead_of).to(table.dtype)
    return torch.cat([front, made]).movedim(0, axis).contiguous()


def banded(table: Tensor, rows: int, columns: int) -> Tensor | None:
    """A mask over the last two axes, queries and keys, of larger ones: what it holds at a distance stays,
    and what it holds at the largest stays beyond. None where it isn't told by distances."""
    last, width = table.shape[-2:]
    edge = torch.cat(
        [table[..., 0, :].flip(-1), table[..., 1:, 0]], -1
    )  # distances from 1 - width to last - 1
    away = torch.arange(last)[:, None] - torch.arange(width)[None]
    if bool((edge[..., away + width - 1] != table).any()):
        return None
    far = torch.arange(rows)[:, None] - torch.arange(columns)[None]
    return edge[..., (far + width - 1).clamp(0, last + width - 2)].contiguous()


def _stretched(known: Tensor, places: int) -> Tensor:
    at = torch.linspace(0, len(known) - 1, places, dtype=torch.float64)
    low = at.floor().long().clamp(max=max(len(known) - 2, 0))
    high = (low + 1).clamp(max=len(known) - 1)
    part = (at - low).reshape(-1, *[1] * (known.dim() - 1))
    return (known[low].double() * (1 - part) + known[high].double() * part).to(known.dtype)

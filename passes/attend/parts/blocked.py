"""Attention over blocks of keys, as PyTorch functions that are traced into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ....ir.fx.graph import add_tensor
from ....ir.program import Program
from .blocks import Band, Table
from .kind import Heads
from .site import Site
from .splice import splice
from .write import heads_of, operands_of


@dataclass(frozen=True)
class Shared:
    """What layers of one pattern share, in the graph.

    places: int64 (blocks * most), the blocks of keys that each block of queries is given, one after the
    other. bias: float (batch or 1, 1, blocks, size, most * size), added to scores.
    """

    form: Band | Table
    places: Node
    bias: Node


def shared(program: Program, site: Site, form: Band | Table) -> Shared:
    """Written before the first of the sites of a pattern."""
    tensors = (
        {"tile": form.tile}
        if isinstance(form, Band)
        else {"keys": form.keys_of, "kinds": form.kinds, "tiles": form.tiles}
    )
    held = [
        add_tensor(program.graph, f"blocks.{site.number}.{name}", torch.from_numpy(array), site.end)
        for name, array in tensors.items()
    ]
    operands = operands_of(site)
    count = len(operands)

    def places(*given: Tensor) -> Tensor:
        blocks = _blocks(heads_of(site, given[:count]), form)
        return _places(form, blocks, given[count:]).clamp(0, blocks - 1).flatten()

    def bias(*given: Tensor) -> Tensor:
        heads = heads_of(site, given[:count])
        return _bias(form, heads, given[count:-1], given[-1])

    found = splice(places, [*operands, *held], site.end)
    return Shared(form, found, splice(bias, [*operands, *held, found], site.end))


def blocked(site: Site, shared: Shared) -> Node:
    """What stands for the heads merged, in front of the old one, which is left as it is."""
    operands = operands_of(site)
    count = len(operands)

    def attend(*given: Tensor) -> Tensor:
        return _attended(shared.form, heads_of(site, given[:count]), *given[count:])

    return splice(attend, [*operands, shared.places, shared.bias], site.end)


def _blocks(heads: Heads, form: Band | Table) -> int:
    """How many blocks hold all places, and the first ones that see all."""
    more = -(-form.first // form.size) - 1
    return (heads.q.shape[2] + form.size - 1) // form.size + max(more, 0)


def _filled(x: Tensor, axis: int, blocks: int, size: int) -> Tensor:
    """With zeros after its end, to so many whole blocks."""
    shape = list(x.shape)
    shape[axis] = blocks * size - shape[axis]
    return torch.cat([x, x.new_zeros(shape)], axis)


def _places(form: Band | Table, blocks: int, held: Sequence[Tensor]) -> Tensor:
    """(blocks, most), some of them before the first block or after the last."""
    if isinstance(form, Table):
        return held[0][:blocks]
    near = torch.arange(blocks)[:, None] + torch.arange(-form.before, form.behind + 1)
    ahead = -(-form.first // form.size)
    if not ahead:
        return near
    return torch.cat([torch.arange(ahead).expand(blocks, ahead), near], 1)


def _bias(form: Band | Table, heads: Heads, held: Sequence[Tensor], places: Tensor) -> Tensor:
    size, blocks, length = form.size, _blocks(heads, form), heads.q.shape[2]
    within = torch.arange(size)
    j = _places(form, blocks, held)[:, :, None] * size + within
    j = j.flatten(1)[:, None]  # (blocks, 1, keys)
    if isinstance(form, Table):
        shown = held[2][held[1][:blocks]].transpose(1, 2).flatten(2)
    else:
        i = (torch.arange(blocks)[:, None] * size + within)[:, :, None]
        shown = held[0] & (j[..., -form.tile.shape[1] :] >= form.first)
        if form.first:
            ahead = j[..., : -form.tile.shape[1]]
            ahead = (ahead < form.first) & (ahead <= i if form.causal else i >= 0)
            shown = torch.cat([ahead, shown], 2)
    shown = shown & (j >= 0) & (j < length)
    if heads.keep is not None:
        keep = _filled(heads.keep, 1, blocks, size).unflatten(1, (blocks, size))
        keep = keep.index_select(1, places).unflatten(1, (blocks, -1)).flatten(2)
        shown = shown & keep[:, :, None]
    else:
        shown = shown[None]
    return torch.where(shown, 0.0, torch.finfo(heads.q.dtype).min).to(heads.q.dtype)[:, None]


def _attended(form: Band | Table, heads: Heads, places: Tensor, bias: Tensor) -> Tensor:
    """(batch, length, features)."""
    size, blocks, length = form.size, _blocks(heads, form), heads.q.shape[2]
    q, k, v = (_filled(x, 2, blocks, size) for x in (heads.q * heads.scale, heads.k, heads.v))

    def near(x: Tensor) -> Tensor:
        found = x.unflatten(2, (blocks, size)).index_select(2, places)
        return found.unflatten(2, (blocks, -1)).flatten(3, 4)

    scores = q.unflatten(2, (blocks, size)) @ near(k).transpose(3, 4) + bias
    found = (scores.softmax(-1) @ near(v)).flatten(2, 3)
    if form.first and not (isinstance(form, Band) and form.causal):
        scores = q[:, :, : form.first] @ heads.k.transpose(2, 3)
        if heads.keep is not None:
            hidden = torch.finfo(scores.dtype).min
            scores = torch.where(heads.keep[:, None, None], scores, hidden)
        whole = scores.softmax(-1) @ heads.v
        found = torch.cat([whole, found[:, :, form.first :]], 2)
    return found[:, :, :length].transpose(1, 2).flatten(2)

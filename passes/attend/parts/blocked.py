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
from .filled import filled
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
    held = [
        add_tensor(program.graph, f"blocks.{site.number}.{name}", torch.from_numpy(array), site.end)
        for name, array in form.tensors.items()
    ]
    operands = operands_of(site)
    count = len(operands)

    def places(*given: Tensor) -> Tensor:
        return _places(form, _blocks(heads_of(site, given[:count]), form), given[count:])

    def bias(*given: Tensor) -> Tensor:
        return _bias(form, heads_of(site, given[:count]), given[count:-1], given[-1])

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


# An axis of blocks is never broadcast against none: traced with a text of one block, it would be taken for 1.
def _places(form: Band | Table, blocks: int, held: Sequence[Tensor]) -> Tensor:
    """(blocks * most) numbers of blocks; where there is no such block, of another."""
    if isinstance(form, Table):
        found = held[0][:blocks].reshape(blocks * form.most)
    else:
        each = torch.arange(blocks * form.most)
        row, column = each // form.most, each % form.most
        found = row + column - (form.ahead + form.before)
        if form.ahead:
            found = torch.where(column < form.ahead, column, found)
    return found.clamp(0, blocks - 1)


def _bias(form: Band | Table, heads: Heads, held: Sequence[Tensor], places: Tensor) -> Tensor:
    size, blocks, length = form.size, _blocks(heads, form), heads.q.shape[2]
    shape = (blocks, size, form.keys)
    if isinstance(form, Table):
        j = held[1][:blocks].reshape(blocks, 1, form.keys)
        shown = held[3][held[2][:blocks]].transpose(1, 2).reshape(shape)
    else:
        each = torch.arange(blocks * form.keys)
        row, column = each // form.keys, each % form.keys
        j = (row - (form.ahead + form.before)) * size + column
        if form.ahead:
            ahead = column < form.ahead * size
            known = (ahead & (column < form.first)) | (~ahead & (j >= form.first))
            j = torch.where(ahead, column, j).reshape(blocks, 1, form.keys)
            shown = held[0].expand(shape) & known.reshape(blocks, 1, form.keys)
            if form.causal:  # the first ones, too
                shown = shown & (j <= torch.arange(blocks * size).reshape(blocks, size, 1))
        else:
            j = j.reshape(blocks, 1, form.keys)
            shown = held[0].expand(shape)
    shown = (shown & (j >= 0) & (j < length))[None]
    if heads.keep is not None:
        keep = filled(heads.keep, 1, blocks, size)
        rows = keep.shape[0]
        keep = keep.reshape(rows, blocks, size).index_select(1, places)
        shown = shown & keep.reshape(rows, blocks, 1, form.keys)
    return torch.where(shown, 0.0, torch.finfo(heads.q.dtype).min).to(heads.q.dtype)[:, None]


def _attended(form: Band | Table, heads: Heads, places: Tensor, bias: Tensor) -> Tensor:
    """(batch, length, features)."""
    size, blocks = form.size, _blocks(heads, form)
    batch, count, length, _ = heads.q.shape
    q, k, v = (filled(x, 2, blocks, size) for x in (heads.q * heads.scale, heads.k, heads.v))

    def cut(x: Tensor) -> Tensor:
        return x.reshape(batch, count, blocks, size, x.shape[-1])

    def near(x: Tensor) -> Tensor:
        return cut(x).index_select(2, places).reshape(batch, count, blocks, form.keys, x.shape[-1])

    scores = cut(q) @ near(k).transpose(3, 4) + bias
    found = (scores.softmax(-1) @ near(v)).reshape(batch, count, blocks * size, v.shape[-1])
    if form.first and not (isinstance(form, Band) and form.causal):
        scores = q[:, :, : form.first] @ heads.k.transpose(2, 3)
        if heads.keep is not None:
            hidden = torch.finfo(scores.dtype).min
            scores = torch.where(heads.keep[:, None, None], scores, hidden)
        found = torch.cat([scores.softmax(-1) @ heads.v, found[:, :, form.first :]], 2)
    return found[:, :, :length].transpose(1, 2).reshape(batch, length, count * v.shape[-1])

"""Attention over [memory, segment] written into an fx program."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node, map_arg
from torch.nn import functional

from ....ir.errors import PassError
from ....ir.fx.graph import call, fake_mode
from ....ir.program import Program
from ....ir.spec import InputSpec
from ..parts.site import Site
from ..parts.splice import splice
from ..parts.write import heads_of, kept
from .anchors import anchor
from .places import Places
from .state import Memory

COUNT = "memory_count"


class Writer:
    """Writes one memory into a program's graph, in place.

    Args:
        sites: all attentions, of one length. memory: of each.

    Attributes:
        inputs: specs of what comes in, in the order of the graph's new inputs. size: bytes remembered of a
            text.
    """

    def __init__(self, program: Program, sites: Sequence[Site], memory: Memory) -> None:
        self._graph, self._memory, self._sites = program.graph.graph, memory, sites
        layout = sites[0].attention.layouts[0]
        self._batch = layout.index("b"), (sites[0].attention.query.shape or ())[layout.index("b")]
        self._query, self._axis = sites[0].lengthwise
        self._mask = sites[0].mask
        self._known: dict[Node, Any] = {}  # of [memory, segment], what was of the segment
        self._both: list[Node] = []
        self.size = 0
        self.inputs: list[InputSpec] = []
        self._count = self._input(COUNT, torch.int64, seen=(0, 2 * memory.span))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(spec.given_by for spec in self.inputs)

    def move(self, places: Places) -> None:
        """Lets a segment's places go on behind what is remembered, and counts those of the memory."""
        memory, first = self._memory, places.first

        def moved(counted: Tensor, count: Tensor, *mask: Tensor) -> Tensor:
            ahead = memory.ahead(count)[:, None]
            if not mask:
                return counted + ahead
            token = (self._kept(mask[0]).to(torch.int64).cumsum(1) - 1).clamp(min=0)
            return torch.where(ahead > 0, token + (ahead + first), counted)

        def all_of(segment: Tensor, count: Tensor) -> Tensor:
            return torch.cat([(memory.remembered(count)[1] + first).to(segment.dtype), segment], 1)

        start = places.counted.next
        new = splice(moved, [places.counted, self._count, *self._masks()], start)
        for reader in places.readers:
            reader.replace_input_with(places.counted, new)
        self._known[new] = splice(all_of, [new, self._count], start)

    def attend(self, site: Site) -> Node:
        """What stands for the heads merged: attention over memory and segment.

        Raises:
            PassError: what lies between projections and scores can't be computed for more keys than queries.
        """
        attention = site.attention
        for one in filter(None, (attention.q, attention.k, attention.v)):
            for cut in (one.root.native, one.input.native):
                self._known.setdefault(cut, cut)  # nothing below a projection is computed again
        for side, value, linear in (
            ("keys", attention.key, attention.k),
            ("values", attention.value, attention.v),
        ):
            assert linear is not None
            node = anchor(linear.root.native, value.native)
            if self._known.get(node, node) is node:
                self._known[node] = self._remembered(node, f"memory_{side}_{site.number}", site.end)
        sides = [self._longer(value.native, site.end) for value in (attention.key, attention.value)]

        def hiding(query: Tensor, count: Tensor, *mask: Tensor) -> Tensor:
            return self._memory.bias(count, self._kept(mask[0]) if mask else None, query.shape[self._axis])

        if site is self._sites[0]:
            self._bias = splice(hiding, [self._query, self._count, *self._masks()], site.end)
        bare = replace(site, mask=None)

        def mixed(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
            heads = heads_of(bare, (query, key, value, query))
            found = functional.scaled_dot_product_attention(
                heads.q, heads.k, heads.v, attn_mask=bias.to(heads.q.dtype), scale=heads.scale
            ).transpose(1, 2)
            return found.reshape(*found.shape[:2], found.shape[2] * found.shape[3])

        return splice(mixed, [attention.query.native, *sides, self._bias], site.end)

    def give(self) -> None:
        """Appends the next memories to the graph's outputs."""
        memory, (end,) = self._memory, self._graph.find_nodes(op="output")

        def fresh(query: Tensor, count: Tensor, *mask: Tensor) -> Tensor:
            if mask:
                return self._kept(mask[0]).to(torch.int64).sum(1)
            return torch.zeros_like(count) + query.shape[self._axis]

        def sources(query: Tensor, count: Tensor, fresh: Tensor, *mask: Tensor) -> Tensor:
            keep = self._kept(mask[0]) if mask else None
            return memory.sources(count, memory.order(count, keep, query.shape[self._axis]), fresh)

        tokens = splice(fresh, [self._query, self._count, *self._masks()], end)
        given = [splice(operator.add, [self._count, tokens], end)]
        if self._mask is None and not memory.compressed:
            last = lambda both, query: both[:, query.shape[self._axis] :]
            given += [splice(last, [both, self._query], end) for both in self._both]
        else:
            found = splice(sources, [self._query, self._count, tokens, *self._masks()], end)
            new = splice(lambda count, fresh: memory.new(count, fresh), [self._count, tokens], end)
            next_ = lambda both, found, new, count: memory.next(both, found, new, count)
            given += [splice(next_, [both, found, new, given[0]], end) for both in self._both]
        end.args = ((*end.args[0], *given),)

    def _remembered(self, segment: Node, name: str, before: Node) -> Node:
        """[memory, segment] of a projection, (batch, places + length, features)."""
        value = segment.meta["val"]
        given = self._input(name, value.dtype, (self._memory.places, value.shape[2]))
        self.size += self._memory.places * value.shape[2] * value.element_size()
        self._both.append(splice(lambda old, new: torch.cat([old, new], 1), [given, segment], before))
        return self._both[-1]

    def _longer(self, node: Node, before: Node) -> Any:
        """What a value of the segment is, of [memory, segment]."""
        if node in self._known:
            return self._known[node]
        value, result = node.meta.get("val"), node
        if isinstance(value, torch.SymInt) and value.node.expr == self._length:
            result = call(self._graph, operator.add, node, self._memory.places, before=node.next)
        elif [self._longer(source, before) for source in node.all_input_nodes] != node.all_input_nodes:
            args, kwargs = map_arg((node.args, dict(node.kwargs)), self._known.__getitem__)
            try:
                result = call(self._graph, node.target, *args, before=before, **kwargs)
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                raise PassError(f"{node.name} can't be computed for remembered keys: {reason}") from error
        self._known[node] = result
        return result

    @property
    def _length(self) -> Any:
        return self._query.meta["val"].shape[self._axis].node.expr

    def _kept(self, mask: Tensor) -> Tensor:
        assert self._mask is not None
        return kept(mask, self._mask[1])

    def _masks(self) -> list[Node]:
        return [self._mask[0]] if self._mask is not None else []

    def _input(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...] = (), seen: tuple[int, int] | None = None
    ) -> Node:
        with self._graph.inserting_after(self._graph.find_nodes(op="placeholder")[-1]):
            node = self._graph.placeholder(name)
        axis, size = self._batch
        with fake_mode(self._graph):
            node.meta["val"] = torch.empty((self._query.meta["val"].shape[axis], *shape), dtype=dtype)
        kind = str(dtype).removeprefix("torch.")
        assert size is not None
        spec = InputSpec(name, kind, (size, *shape), "memory", seen=seen, given_by=f"new_{name}")
        self.inputs.append(spec)
        return node

"""A program on the tokens that are left: all behind a cut reads fewer, and reads what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from ....ir.blocks.base import Attention
from ....ir.errors import PassError
from ....ir.fx.graph import propagate, prune, restate
from ....ir.fx.mode import argument, set_argument
from ....ir.fx.operators import packet, symbolic
from ....ir.ops.elementwise import couple_elementwise
from ....ir.ops.table import OPERATORS
from ....ir.program import Program
from ....ir.spec import InputSpec
from ....ir.values import GraphValue, Value
from .masks import only_padding
from .ranked import Level, Maker, at_places, aten, chosen, scores, taken
from .sites import ALONG, Site, Tokens

_LISTS = {
    "view": "size",
    "reshape": "shape",
    "_unsafe_view": "size",
    "expand": "size",
    "broadcast_to": "size",
}
_FOLLOWED = {"unsqueeze", "squeeze", "expand", "reshape", "transpose", "sum", "select", "slice"}
_WRAPS = {"expand", "identity", "cast", "slice", "unsqueeze", "reshape"}


class Shifted:
    """Rewrites a program in place, cut by cut in the order of its nodes.

    Args:
        found: its tokens. shares: thousandths of a text's tokens that stay, by site, ever fewer.
        kind: of the scores, see `ranked.scores`.
    """

    def __init__(self, program: Program, found: Tokens, shares: Mapping[Site, int], kind: str) -> None:
        self._program, self._found, self._kind = program, found, kind
        self._graph = program.graph.graph
        self._cuts = {site.cut.native: (site, share) for site, share in shares.items()}
        self._values = {v.native: v for v in found.view.values if isinstance(v.native, Node)}
        below = found.below([site.cut for site in shares])
        self._level = {v.native: n for v, n in below.items() if isinstance(v.native, Node)}
        for node in self._graph.nodes:  # what gives several results is no value itself
            if node not in self._level and not symbolic(node):
                above = [self._level[x] + (x in self._cuts) for x in node.all_input_nodes]
                self._level[node] = max(above, default=0)
        self._spec: InputSpec | None = None
        if found.mask is not None:
            self._spec = next(s for s in program.inputs if s.name == found.mask.name)
        self._masky = _descendants(found.mask.native) if found.mask is not None else set()
        self._terms = _terms(found)
        self._only_padding, self._nothing = only_padding(program, self._spec, self._terms)
        self._levels: list[Level] = []
        self._moved: dict[tuple[Node, int, int], Node] = {}

    def run(self) -> None:
        """Does it.

        Raises:
            PassError: something in the graph cannot be followed, by its name.
        """
        nodes = list(self._graph.nodes)
        self._start()
        for node in nodes:
            level = self._level.get(node, 0)
            if symbolic(node):
                self._measured(node)
            elif level and node.op == "call_function":
                self._read(node, level)
                self._sized(node, self._values.get(node), level)
                restate(self._graph, node)
            if node in self._cuts:
                self._cut(node)
        prune(self._program.graph)
        propagate(self._program.graph)
        self._program.graph.recompile()

    def _measured(self, node: Node) -> None:
        """How many tokens there were is what graphs ask: they make masks of it."""
        source, size = node.args[0] if node.args else None, self._levels[0].size
        if node.target is not aten.sym_size.int or not isinstance(source, Node) or isinstance(size, int):
            return
        if self._level.get(source) and node.args[1] in self._token_axes(source):
            node.replace_all_uses_with(size)

    def _start(self) -> None:
        """The level above all cuts: sizes, and which tokens there are."""
        first = next(iter(self._cuts))
        after = next(n for n in self._graph.nodes if n.op not in ("placeholder", "get_attr"))
        given: Any = self._found.mask.native if self._found.mask is not None else None
        shape = first.meta["val"].shape
        source = given
        if source is None:
            inputs = [n for n in self._graph.nodes if n.op == "placeholder"]
            source = next(n for n in inputs if n.meta["val"].dim())
        self._make = Maker(self._graph, after, 0)
        self._batch = _size(self._make, shape[0], source, 0)
        self._make.batch = self._batch
        live, self._counts = None, None
        if given is not None:
            assert self._spec is not None
            live = self._make(aten.eq.Scalar if self._spec.hidden else aten.ne.Scalar, given, 0)
            self._counts = self._make(aten.sum.dim_IntList, live, [-1], True)
        top = _size(self._make, shape[1], source, 1)
        self._levels.append(Level(top, live))

    def _cut(self, node: Node) -> None:
        site, share = self._cuts[node]
        make = Maker(self._graph, node.next, self._batch)
        level = self._levels[-1]
        found = self._scores(make, site.attention, level)
        self._levels.append(chosen(make, level, self._levels[0].size, self._counts, found, share))
        number = len(self._levels) - 1
        self._moved[node, number - 1, number] = taken(make, node, self._levels[-1], level.size)

    def _scores(self, make: Maker, attention: Attention, level: Level) -> Node:
        number = len(self._levels) - 1
        at = lambda value: self._at(make, value.native, number, attention.context.native)
        terms = lambda: [(factor, at(value)) for factor, value in attention.terms]
        selected = None
        if attention.selected and attention.mask is not None:
            selected = (at(attention.mask), attention.mask_keeps)
        return scores(make, attention, level, terms, selected, self._kind)

    def _read(self, node: Node, level: int) -> None:
        """Makes a node's operands those of its level."""
        make = Maker(self._graph, node, self._batch)
        for operand in list(node.all_input_nodes):
            if operand.op != "get_attr" or self._token_axes(operand):
                new = self._at(make, operand, level, node)
                if new is not operand:
                    node.replace_input_with(operand, new)

    def _at(self, make: Maker, node: Node, level: int, user: Node) -> Node:
        """What a value is at a level, for a user of it there."""
        if node not in self._values or symbolic(node):
            return node
        start = self._level[node]
        if start == level or (not self._token_axes(node) and (start or node not in self._masky)):
            return node
        if (node, start, level) in self._moved:
            return self._moved[node, start, level]
        if node in self._terms:
            new = self._mask(make, node, level)
        elif start == 0 and node in self._masky:
            new = self._again(make, node, level)
        else:
            new = self._gathered(make, node, start, level, user)
        self._moved[node, start, level] = new
        return new

    def _token_axes(self, node: Node) -> tuple[int, ...]:
        value = self._values.get(node)
        if value is None:
            return ()
        if self._found.merged[value] and self._level[node] == 0 and node not in self._masky:
            return ()
        return self._found.axes[value]

    def _gathered(self, make: Maker, node: Node, start: int, level: int, user: Node) -> Node:
        """A value of a level above, at the tokens that are left."""
        value = self._values[node]
        rank = len(user.meta["val"].shape) if not self._found.batch[value] else 0
        steps = range(start + 1, level + 1) if start else (level,)
        for number in steps:
            end, above = self._levels[number], self._levels[number - 1 if start else 0].size
            index = end.index if start else end.origin
            assert index is not None
            wide, axes, sizes = self._widened(make, node, self._found.axes[value], rank, above)
            if 0 in axes:
                raise PassError(f"{value.name} has tokens along its first axis, where {user.name} reads it")
            node = at_places(make, wide, axes, index, end.size, sizes)
        return node

    def _widened(
        self, make: Maker, node: Node, axes: Sequence[int], rank: int, above: Any
    ) -> tuple[Node, tuple[int, ...], list[Any]]:
        """(a value with so many axes, where its tokens lie in it, its sizes)."""
        more = max(0, rank - node.meta["val"].dim())
        for _ in range(more):
            node = make(aten.unsqueeze.default, node, 0)
        axes = tuple(axis + more for axis in axes)
        shape = enumerate(node.meta["val"].shape)
        own = lambda i, dim: int(dim) if isinstance(dim, int) else make(aten.sym_size.int, node, i)
        return node, axes, [above if i in axes else own(i, dim) for i, dim in shape]

    def _mask(self, make: Maker, node: Node, level: int) -> Node:
        """A mask, or a bias, of the scores of the tokens that are left."""
        end, dtype = self._levels[level], node.meta["val"].dtype
        keeps = self._terms[node]
        shown = None
        if end.live is not None:
            shown = make(aten.unsqueeze.default, make(aten.unsqueeze.default, end.live, 1), 1)
        if node in self._nothing:
            open_ = keeps if dtype == torch.bool else 0.0
            return make(aten.full.default, [1, 1, 1, 1], open_, dtype=dtype)
        if node in self._only_padding and shown is not None:
            if dtype == torch.bool:
                return shown if keeps else make(aten.logical_not.default, shown)
            zeros = make(aten.zeros_like.default, make(aten.to.dtype, shown, dtype))
            return make(aten.where.ScalarOther, shown, zeros, torch.finfo(dtype).min)
        found = self._found.axes[self._values[node]]
        wide, axes, sizes = self._widened(make, node, found, 4, self._levels[0].size)
        assert end.origin is not None
        new = at_places(make, wide, axes, end.origin, end.size, sizes)
        if shown is None:
            return new
        if dtype == torch.bool:
            hidden = shown if keeps else make(aten.logical_not.default, shown)
            return make(aten.logical_and.default if keeps else aten.logical_or.default, new, hidden)
        return make(aten.where.ScalarOther, shown, new, torch.finfo(dtype).min)

    def _again(self, make: Maker, node: Node, level: int) -> Node:
        """What is computed from the mask of the text, computed from the mask of the tokens that are left."""
        end = self._levels[level]
        if self._found.mask is not None and node is self._found.mask.native:
            assert end.live is not None
            assert self._spec is not None
            dtype = node.meta["val"].dtype
            if not self._spec.hidden:
                return make(aten.to.dtype, end.live, dtype)
            hidden = int(self._spec.hidden) if not dtype.is_floating_point else self._spec.hidden
            zeros = make(aten.zeros_like.default, make(aten.to.dtype, end.live, dtype))
            return make(aten.where.ScalarOther, end.live, zeros, hidden)
        value = self._values[node]
        rule = OPERATORS.get(value.op)
        pointwise = rule is not None and rule.couple is couple_elementwise
        if not (pointwise or value.op in _FOLLOWED) or value.op in ALONG:
            raise PassError(f"{node.name} ({value.op}) makes of the mask what cannot be followed")
        moved = {x: self._at(make, x, level, node) for x in node.all_input_nodes if not symbolic(x)}
        with self._graph.inserting_before(make.before):
            copy = self._graph.node_copy(node, lambda x: moved.get(x, x))
        self._sized(copy, value, level)
        new = make(copy.target, *copy.args, **copy.kwargs)
        self._graph.erase_node(copy)
        return new

    def _sized(self, node: Node, value: GraphValue | None, level: int) -> None:
        """Restates the sizes that a node gives."""
        name = packet(node).removeprefix("aten.")
        if value is None or name not in _LISTS:
            return
        key = _LISTS[name]
        sizes = list(argument(node, key))
        extra = len(value.shape or ()) - len(sizes)
        for axis in self._found.axes[value]:
            if sizes[axis - extra] not in (-1, 1):
                sizes[axis - extra] = self._levels[level].size
        for axis in self._found.merged[value]:
            if sizes[axis - extra] != -1:
                if -1 in sizes:
                    raise PassError(f"{node.name} states two sizes that hang on the number of tokens")
                sizes[axis - extra] = -1
        set_argument(node, key, sizes)


def _size(make: Maker, dim: Any, source: Node, axis: int) -> Any:
    return int(dim) if isinstance(dim, int) else make(aten.sym_size.int, source, axis)


def _descendants(node: Node) -> set[Node]:
    """Every value that is computed from one; sizes are no values."""
    found, stack = {node}, [node]
    while stack:
        for user in stack.pop().users:
            if user not in found and user.op == "call_function" and not symbolic(user):
                found.add(user)
                stack.append(user)
    return found


def _terms(found: Tokens) -> dict[Node, bool]:
    """What is added to, or chosen over, scores; whether a mask among them is true where it keeps."""
    terms: dict[Value, bool] = {}
    for attention in found.blocks.attention:
        added = {value: True for _, value in attention.terms}
        if attention.selected and attention.mask is not None:
            added[attention.mask] = attention.mask_keeps
        for value, keeps in added.items():
            stack = [value]
            for one in stack:
                terms[one] = keeps
                stack += [v for v in one.users if v.op in _WRAPS and v not in attention.body]
    return {value.native: keeps for value, keeps in terms.items() if isinstance(value.native, Node)}

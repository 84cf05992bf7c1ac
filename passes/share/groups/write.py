"""A feed-forward or a projection of an fx program as products that each see one group of features."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule, Node, map_arg

from ....ir.blocks.base import Linear
from ....ir.fx.graph import add_tensor, attribute, call
from ..low_rank.tables import like, replace_node
from .sites import Site

aten = torch.ops.aten


@dataclass(frozen=True)
class Block:
    """Of a matrix. rows: (r,), which of its outputs it makes. weight: (r, k). shift: (r,), what is added to
    the bias."""

    rows: np.ndarray
    weight: np.ndarray
    shift: np.ndarray


@dataclass
class Writer:
    """Edits one graph, site by site; `prune` and `propagate` it afterwards.

    replaced: what took the place of what a product gave. pieces: of a value, each group's features.
    """

    gm: GraphModule
    groups: int
    replaced: dict[Node, Node] = field(default_factory=dict)
    pieces: dict[Node, list[Node]] = field(default_factory=dict)
    stored: dict[tuple[str, str, int], Node] = field(default_factory=dict)

    def projection(self, site: Site, blocks: Sequence[Block]) -> None:
        """q = linear(x, w)  ->  q = cat(linear(x_1, w_1), linear(x_2, w_2), ...)

        Args:
            blocks: one a group, for each piece of the matrix's rows.
        """
        for (linear,) in site.uses:
            root: Node = linear.root.native
            parts = self._split(linear.input.native)
            name = site.products[0][0].name
            made = [
                self._linear(name, linear, block, number, parts[number % self.groups], root)
                for number, block in enumerate(blocks)
            ]
            self._put(root, made)

    def feed_forward(self, site: Site, blocks: Sequence[Sequence[Block]]) -> None:
        """y = linear(f(linear(x, up)), down)  ->  y = cat(linear(f(linear(x_1, up_1)), down_1), ...)

        Args:
            blocks: for each piece of rows, `down` last: one a group.
        """
        names = [matrix.name for matrix, _ in site.products]
        owners = [number for number, (_, pieces) in enumerate(site.products[:-1]) for _ in pieces]
        for use, parts, body in zip(site.uses, site.parts, site.body, strict=True):
            down = use[-1]
            root: Node = down.root.native
            inputs, results = self._split(use[0].input.native), []
            for group, x in enumerate(inputs):
                known: dict[Node, Node] = {}
                for place, (owner, part) in enumerate(zip(owners, parts, strict=True)):
                    block, number = blocks[place][group], place * self.groups + group
                    known[part] = self._linear(names[owner], use[owner], block, number, x, root)
                inside = copied(body, known, root)
                results.append(self._linear(names[-1], down, blocks[-1][group], group, inside, root))
            self._put(root, results)

    def _split(self, x: Node) -> list[Node]:
        """Right after a value, its features in groups."""
        x = self.replaced.get(x, x)
        if x not in self.pieces:
            after = x.next
            while after.op == "placeholder":
                after = after.next
            size = int(x.meta["val"].shape[-1]) // self.groups
            whole = call(self.gm.graph, aten.split.Tensor, x, size, -1, before=after)
            self.pieces[x] = [
                call(self.gm.graph, operator.getitem, whole, number, before=after)
                for number in range(self.groups)
            ]
        return self.pieces[x]

    def _linear(self, name: str, linear: Linear, block: Block, number: int, x: Node, before: Node) -> Node:
        """name: of the matrix. number: of the block among its own."""
        paths = [(name, block.weight)]
        if linear.bias is not None:
            path = str(linear.bias.native.target)
            old = attribute(self.gm, path).detach().double().numpy()
            paths.append((path, old[block.rows] + block.shift))
        tensors = [self._tensor(name, path, new, number, before) for path, new in paths]
        return call(self.gm.graph, aten.linear.default, x, *tensors, before=before)

    def _tensor(self, name: str, path: str, new: np.ndarray, number: int, before: Node) -> Node:
        """A block's parameter; where layers share one, the same."""
        owner, _, leaf = path.rpartition(".")
        first = self.stored.get((name, path, number))
        if first is None:
            made = like(attribute(self.gm, path), new)
            wanted = f"{owner}.group_{number}.{leaf}" if owner else f"{leaf}_group_{number}"
            first = self.stored[name, path, number] = add_tensor(self.gm, wanted, made, before=before)
            return first
        with self.gm.graph.inserting_before(before):
            again = self.gm.graph.get_attr(str(first.target))
        again.meta["val"] = first.meta["val"]
        return again

    def _put(self, root: Node, parts: list[Node]) -> None:
        self.replaced[root] = call(self.gm.graph, aten.cat.default, parts, -1, before=root)
        replace_node(root, self.replaced[root])


def copied(body: Sequence[Node], known: dict[Node, Node], before: Node) -> Node:
    """The operators once more, over other values; the last one's result."""
    for node in body:
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda old: known.get(old, old))
        known[node] = call(before.graph, node.target, *args, before=before, **kwargs)
    return known[body[-1]]

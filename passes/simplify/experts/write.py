"""A feed-forward of an fx program as experts, of which a router chooses some for each token."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks.base import Linear
from ....ir.fx.graph import add_tensor, attribute, call
from ....ir.fx.grouped import grouped_mm
from ...share.groups.sites import Site
from ...share.groups.write import copied
from ...share.low_rank.tables import like, replace_node
from .plans import Plan

aten = torch.ops.aten
OPERATOR = grouped_mm._opoverload


@dataclass
class Writer:
    """Edits one graph, site by site; `prune` and `propagate` it afterwards.

    stored: tensors by what they are, so that layers that share a feed-forward share its experts.
    """

    gm: GraphModule
    stored: dict[str, Node] = field(default_factory=dict)

    def feed_forward(self, site: Site, plan: Plan, top: int) -> None:
        """y = linear(f(linear(x, up)), down)

        ->  chosen = topk(linear(x, router), top); tokens, ends = those of each expert in turn
            y = sum of grouped_mm(f(grouped_mm(x[tokens], ups, ends)), downs, ends), by token
        """
        for use, parts, body in zip(site.uses, site.parts, site.body, strict=True):
            root: Node = use[-1].root.native
            edit = _Edit(self, site, plan, top, root)
            edit.route(use[0].input.native)
            known = dict(zip(parts, edit.ups(use), strict=True))
            made = edit.downs(use[-1], copied(body, known, root))
            replace_node(root, edit.back(made, use[0].input.native))


class _Edit:
    """One feed-forward's. sorted: (rows,), the expert of each row, ascending; a row is a token's choice."""

    def __init__(self, writer: Writer, site: Site, plan: Plan, top: int, before: Node) -> None:
        self.writer, self.site, self.plan, self.top, self.before = writer, site, plan, top, before
        self.owner = site.products[0][0].name.rpartition(".")[0]

    def route(self, x: Node) -> None:
        experts = len(self.plan.order)
        rows = self._call(aten.reshape.default, x, [-1, int(x.meta["val"].shape[-1])])
        router = self._tensor("router.weight", torch.from_numpy(self.plan.router).float())
        shift = self._tensor("router.bias", torch.from_numpy(self.plan.shift).float())
        best = self._call(aten.topk.default, self._call(aten.linear.default, rows, router, shift), self.top)
        chosen = self._call(aten.reshape.default, self._call(operator.getitem, best, 1), [-1])
        in_turn = self._call(aten.sort.default, chosen)
        self.sorted, self.order = (self._call(operator.getitem, in_turn, place) for place in range(2))
        numbers = self._tensor("numbers", torch.arange(experts))
        before = self._call(aten.le.Tensor, self._call(aten.unsqueeze.default, self.sorted, 1), numbers)
        self.ends = self._call(aten.sum.dim_IntList, before, [0], dtype=torch.int32)
        tokens = self.order
        if self.top > 1:
            tokens = self._call(aten.floor_divide.default, self.order, self.top)
        self.rows = self._call(aten.index_select.default, rows, 0, tokens)

    def ups(self, use: tuple[Linear, ...]) -> list[Node]:
        """What the activation reads, as a site's `parts` have it."""
        made = []
        for linear, (matrix, pieces) in zip(use[:-1], self.site.products[:-1], strict=True):
            for start, stop in pieces:
                rows = start + self.plan.order
                weight = matrix.numbers().numpy()[rows].transpose(0, 2, 1)
                bias = None if linear.bias is None else self._numbers(linear.bias.native)[rows]
                which = f"{matrix.name}.{start}.{stop}"
                made.append(self._product(matrix.name, which, self.rows, weight, bias))
        return made

    def downs(self, linear: Linear, inside: Node) -> Node:
        """Each expert's results, less what it gives on average where it is not chosen, with a part of the
        bias and of all these averages: so those that are not chosen give theirs."""
        matrix, _ = self.site.products[-1]
        weight = matrix.numbers().numpy()[:, self.plan.order].transpose(1, 2, 0)
        bias = None if linear.bias is None else self._numbers(linear.bias.native) / self.top
        if self.plan.unchosen is not None:
            mean = self.plan.unchosen[self.top - 1]
            always = mean.sum(0) / self.top - mean
            bias = always if bias is None else always + bias
        if bias is not None:
            bias = np.broadcast_to(bias, (len(self.plan.order), matrix.rows))
        return self._product(matrix.name, matrix.name, inside, weight, bias)

    def back(self, made: Node, x: Node) -> Node:
        """Rows to the sums of each token's, with the axes of the input."""
        count = self._call(aten.sym_size.int, self.order, 0)
        places = self._call(aten.arange.default, count)
        inverse = self._call(aten.scatter.src, self.order, 0, self.order, places)
        result = self._call(aten.index_select.default, made, 0, inverse)
        width = int(made.meta["val"].shape[-1])
        if self.top > 1:
            apart = self._call(aten.reshape.default, result, [-1, self.top, width])
            result = self._call(aten.sum.dim_IntList, apart, [1])
        sizes = x.meta["val"].shape[:-1]
        axes = [
            size if isinstance(size, int) else self._call(aten.sym_size.int, x, axis)
            for axis, size in enumerate(sizes)
        ]
        return result if len(axes) == 1 else self._call(aten.reshape.default, result, [*axes, width])

    def _product(self, name: str, key: str, x: Node, weight: np.ndarray, bias: np.ndarray | None) -> Node:
        """name: of the matrix that it was. key: of what is stored for it."""
        gm = self.writer.gm
        leaf = name.rpartition(".")[2]
        stack = self._tensor(f"experts.{leaf}", like(attribute(gm, name), weight), name, key)
        if bias is None:
            return self._call(OPERATOR, x, stack, self.ends)
        shifts = self._tensor("experts.bias", like(attribute(gm, name), np.array(bias)), name, f"{key}.bias")
        return self._call(OPERATOR, x, stack, self.ends, shifts)

    def _tensor(self, leaf: str, tensor: torch.Tensor, name: str = "", key: str = "") -> Node:
        """A new tensor beside the matrix of a name; where layers share one, the same."""
        gm = self.writer.gm
        owner = name.rpartition(".")[0] if name else self.owner
        key = f"{key or self.site.name}:{leaf}"
        if key not in self.writer.stored:
            path = f"{owner}.{leaf}" if owner else leaf
            self.writer.stored[key] = add_tensor(gm, path, tensor, before=self.before)
            return self.writer.stored[key]
        first = self.writer.stored[key]
        with gm.graph.inserting_before(self.before):
            again = gm.graph.get_attr(str(first.target))
        again.meta["val"] = first.meta["val"]
        return again

    def _numbers(self, bias: Node) -> np.ndarray:
        return attribute(self.writer.gm, str(bias.target)).detach().double().numpy()

    def _call(self, target: object, *args: object, **kwargs: object) -> Node:
        return call(self.writer.gm.graph, target, *args, before=self.before, **kwargs)

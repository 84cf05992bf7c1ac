"""Products and norms of one narrow layer, written into an fx graph."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks.base import Norm
from ....ir.fx.graph import add_tensor, attribute, call
from ..low_rank.tables import like
from .sites import Site
from .start import Affine

aten = torch.ops.aten


@dataclass(frozen=True)
class Dense:
    """A product that was written. x: what it reads. weight, bias: paths, the second empty where it has none.
    stream: what its result is added to."""

    x: Node
    root: Node
    weight: str
    bias: str
    stream: Node | None = None


@dataclass(frozen=True)
class Scaled:
    """A norm that was written. kind: as which other one. weight, bias: paths, empty where it has none."""

    x: Node
    root: Node
    weight: str
    bias: str
    kind: Norm


class Hand:
    """Writes products and norms of one layer: parameters of layers that shared theirs are one."""

    def __init__(self, gm: GraphModule, site: Site, stored: dict[Hashable, Node]) -> None:
        self._gm, self._site, self._stored = gm, site, stored
        attention = site.attention
        paths = [str(one.weight.native.target).split(".")[:-1] for one in site.linears]
        same = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        self._prefix = ".".join(parts[0] for parts in same)
        assert attention.o is not None
        self._like = attribute(gm, str(attention.o.weight.native.target))
        self._biased = any(one.bias is not None for one in site.linears)

    def call(self, target: Any, *args: Any, before: Node, **kwargs: Any) -> Node:
        return call(self._gm.graph, target, *args, before=before, **kwargs)

    def dense(self, name: str, x: Node, product: Affine, before: Node, stream: Node | None = None) -> Dense:
        weight = self._tensor(name, "weight", product.weight, before)
        bias = [self._tensor(name, "bias", product.bias, before)] if self._biased else []
        root = self.call(aten.linear.default, x, weight, *bias, before=before)
        return Dense(x, root, str(weight.target), str(bias[0].target) if bias else "", stream)

    def norm(self, name: str, x: Node, before: Node) -> Scaled:
        """As the layer's own, over fewer features."""
        kind, width = self._site.middle, int(x.meta["val"].shape[-1])
        of = f"{name}.norm"
        weight = self._tensor(of, "weight", np.ones(width), before) if kind.weight is not None else None
        bias = self._tensor(of, "bias", np.zeros(width), before) if kind.bias is not None else None
        if kind.kind == "layer_norm":
            root = self.call(aten.layer_norm.default, x, [width], weight, bias, kind.epsilon, before=before)
        elif kind.kind == "rms_norm":
            root = self.call(aten.rms_norm.default, x, [width], weight, kind.epsilon, before=before)
        else:
            root = self.call(aten.mul.Tensor, x, weight, before=before)
            root = self.call(aten.add.Tensor, root, bias, before=before)
        paths = ["" if node is None else str(node.target) for node in (weight, bias)]
        return Scaled(x, root, paths[0], paths[1], kind)

    def _tensor(self, name: str, leaf: str, new: np.ndarray, before: Node) -> Node:
        """A parameter; that of the layers before which shared what it comes of."""
        of_attention, of_ffn = self._site.key
        if name in ("joined", "attention", "attention.norm") or name.startswith(("query", "key", "value")):
            of: Hashable = of_attention
        elif name.startswith("ffn") and not name.endswith("norm"):
            of = of_ffn
        else:
            of = self._site.key
        first = self._stored.get((of, name, leaf))
        if first is None:
            wanted = ".".join(filter(None, (self._prefix, "bottleneck", name, leaf)))
            first = add_tensor(self._gm, wanted, like(self._like, new), before=before)
            self._stored[of, name, leaf] = first
            return first
        with self._gm.graph.inserting_before(before):
            again = self._gm.graph.get_attr(str(first.target))
        again.meta["val"] = first.meta["val"]
        return again

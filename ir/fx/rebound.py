"""Other bounds for the symbols that a graph's shapes are written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, disable_fake_tensor_cache
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ..spec import UNBOUNDED, InputSpec
from .graph import attribute, propagate

# What symbols stand for while shapes are computed: no model's own sizes, so that nothing is equal by chance.
_SIZES = (61, 67, 71, 73, 79, 83, 89, 97)


def rebound(
    gm: GraphModule,
    inputs: Sequence[InputSpec],
    symbols: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, int] | None = None,
) -> None:
    """States every shape anew, over symbols of its own: clones keep theirs, with the bounds that they had.

    Args:
        inputs: in the order of the graph's. symbols: inclusive bounds of each. sizes: what each stands for
            while shapes are computed; chosen here where none are given.

    Raises:
        GraphwrightError: operands do not go together, named with the node.
    """
    env = ShapeEnv()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=env)
    sizes = sizes or _sizes(symbols)
    placeholders = gm.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, inputs, strict=True):
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape]
        kinds = [
            DimDynamic.STATIC
            if isinstance(dim, int) or symbols[dim][0] == symbols[dim][1]
            else DimDynamic.DUCK
            for dim in spec.shape
        ]
        like = node.meta["val"]
        given = torch.empty(shape, dtype=like.dtype)
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        node.meta["val"] = mode.from_tensor(given, symbolic_context=context)
        for dim, size in zip(spec.shape, node.meta["val"].shape, strict=True):
            if isinstance(dim, str) and isinstance(size, torch.SymInt) and symbols[dim][1] < UNBOUNDED:
                env.constrain_symbol_range(
                    size.node.expr, compiler_min=max(2, symbols[dim][0]), compiler_max=symbols[dim][1]
                )
    for node in gm.graph.find_nodes(op="get_attr"):
        tensor = attribute(gm, str(node.target))
        if isinstance(tensor, torch.Tensor):
            with mode:
                node.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    with disable_fake_tensor_cache(mode):  # symbols are seldom found there: see `uncached`
        propagate(gm)


def _sizes(symbols: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Of each symbol one within its bounds, no two alike where that can be."""
    sizes: dict[str, int] = {}
    for symbol, (low, high) in symbols.items():
        free = [size for size in (*_SIZES, *range(2, 61)) if size not in sizes.values()]
        fit = [size for size in free if low <= size <= high]
        sizes[symbol] = fit[0] if fit else low + len(sizes) if low + len(sizes) <= high else low
    return sizes

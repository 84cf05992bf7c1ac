"""How long an input may grow before a table of positions runs out: read by running the ids' own subgraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from .program import InputSpec

_SIZES = (3, 6)


def longest(gm: GraphModule, specs: Sequence[InputSpec], feed: Mapping[str, Tensor]) -> dict[str, int]:
    """Largest size of each symbol for which every computed id stays inside its table.

    Position ids are computed (arange, or cumsum over the mask) and grow by one with the length, so two short
    runs foretell the length at which an id falls outside, and a third checks it: the buckets of relative
    positions grow at first too, and then stay inside. Ids that an input brings along are not concerned.

    Args:
        gm: a traced graph. specs: its inputs. feed: example tensors, right-padded where there is a mask.
    """
    lookups = [n for n in gm.graph.nodes if n.target is torch.ops.aten.embedding.default]
    lookups = [n for n in lookups if isinstance(n.args[1], Node) and n.args[1].op == "call_function"]
    bounds: dict[str, int] = {}
    for symbol in sorted({s for spec in specs for s in spec.shape if isinstance(s, str)} - {"batch"}):
        if not lookups:
            break
        first, second = (_largest_ids(gm, lookups, _resized(specs, feed, symbol, size)) for size in _SIZES)
        for node, a, b in zip(lookups, first, second, strict=True):
            rows = node.args[0].meta["val"].shape[0]
            bound = rows - (a - (_SIZES[0] - 1))
            if b - a == _SIZES[1] - _SIZES[0] and bound < bounds.get(symbol, bound + 1):
                (beyond,) = _largest_ids(gm, [node], _resized(specs, feed, symbol, bound + 1))
                if beyond >= rows:
                    bounds[symbol] = bound
    return bounds


def _resized(specs: Sequence[InputSpec], feed: Mapping[str, Tensor], symbol: str, size: int) -> list[Tensor]:
    """One row of every input, `size` long along `symbol`: its first, unmasked element repeated."""
    tensors = []
    for spec in specs:
        tensor = feed[spec.name]
        for axis, dim in enumerate(spec.shape):
            if dim == symbol:
                tensor = tensor.narrow(axis, 0, 1).repeat_interleave(size, axis)
        tensors.append(tensor)
    return tensors


def _largest_ids(gm: GraphModule, lookups: Sequence[Node], tensors: Sequence[Tensor]) -> list[int]:
    needed: set[Node] = set()
    stack = [node.args[1] for node in lookups]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    interpreter = Interpreter(gm, garbage_collect_values=False)
    feeds = iter(tensors)
    with torch.no_grad():
        for node in gm.graph.nodes:
            if node.op == "placeholder":
                interpreter.env[node] = next(feeds)
            elif node in needed:
                interpreter.env[node] = interpreter.run_node(node)
    return [int(interpreter.env[node.args[1]].max()) for node in lookups]  # type: ignore[index]

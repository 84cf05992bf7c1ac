"""How long an input may grow before a table of positions runs out: read by running the ids' own subgraph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ..spec import InputSpec

_ATEN = torch.ops.aten
_SIZES = (3, 6)


def longest(gm: GraphModule, specs: Sequence[InputSpec], feed: Mapping[str, Tensor]) -> dict[str, int]:
    """Largest size of each symbol for which every computed id stays inside its table.

    Position ids are computed (arange, or cumsum over the mask) and grow by one with the length, so two short
    runs foretell the length at which an id falls outside, and a third checks it: the buckets of relative
    positions grow at first too, and then stay inside. Ids that an input brings along are not concerned.

    Args:
        gm: a traced graph. specs: its inputs. feed: example tensors, right-padded where there is a mask.
    """
    lookups = list(_lookups(gm))
    bounds: dict[str, int] = {}
    for symbol in sorted({s for spec in specs for s in spec.shape if isinstance(s, str)} - {"batch"}):
        if not lookups:
            break
        ids = [node for node, _ in lookups]
        first, second = (_largest_ids(gm, ids, _resized(specs, feed, symbol, size)) for size in _SIZES)
        if first is None or second is None:
            continue  # the module doesn't take such sizes
        for (node, rows), a, b in zip(lookups, first, second, strict=True):
            bound = rows - (a - (_SIZES[0] - 1))
            if b - a == _SIZES[1] - _SIZES[0] and bound < bounds.get(symbol, bound + 1):
                beyond = _largest_ids(gm, [node], _resized(specs, feed, symbol, bound + 1))
                if beyond is None or beyond[0] >= rows:
                    bounds[symbol] = bound
    return bounds


def _lookups(gm: GraphModule) -> Iterator[tuple[Node, int]]:
    """(ids, rows) wherever ids that the graph computes choose rows of a tensor of fixed size."""
    for node in gm.graph.nodes:
        if node.target is _ATEN.embedding.default:
            chosen = [(0, node.args[1])]
        elif node.target in (_ATEN.index_select.default, _ATEN.gather.default):
            chosen = [(node.args[1], node.args[2])]
        elif node.target is _ATEN.index.Tensor:
            chosen = [(axis, ids) for axis, ids in enumerate(node.args[1]) if ids is not None]
        else:
            continue
        shape = node.args[0].meta["val"].shape
        for axis, ids in chosen:
            if not isinstance(ids, Node) or ids.op != "call_function" or not isinstance(shape[axis], int):
                continue
            if ids.meta["val"].dtype in (torch.int64, torch.int32):
                yield ids, shape[axis]


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


def _largest_ids(gm: GraphModule, ids: Sequence[Node], tensors: Sequence[Tensor]) -> list[int] | None:
    """The largest of each of some computed ids; None where computing them fails."""
    needed: set[Node] = set()
    stack = list(ids)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    interpreter = Interpreter(gm, garbage_collect_values=False)
    feeds = iter(tensors)
    try:
        with torch.no_grad():
            for node in gm.graph.nodes:
                if node.op == "placeholder":
                    interpreter.env[node] = next(feeds)
                elif node in needed:
                    interpreter.env[node] = interpreter.run_node(node)
    except (RuntimeError, IndexError, ValueError):
        return None
    return [int(interpreter.env[node].max()) for node in ids]

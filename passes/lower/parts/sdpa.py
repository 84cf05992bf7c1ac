"""scaled_dot_product_attention with a mask, written so that torch's exporter keeps what it computes.

PyTorch gives zero where every key is hidden. torch's exporter spells a boolean mask with the smallest finite
number, which gives the mean of all values there, and an infinite one with a plain softmax, which gives NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from math import isqrt, prod
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.fx.graph import clone
from ....ir.fx.operators import bind, packet, symbolic
from ....ir.inputs.cached import settled
from ....ir.inputs.probe import Feed, feed
from ....ir.program import Program
from ....ir.spec import MASKS

_ATEN = torch.ops.aten
_SHORT = 9  # tokens, each of which is kept alone
LARGEST = 5000**2  # windows of 4,096 are common in decoders
_RANK = 4  # (batch, heads, length, width), the only one that torch's exporter takes
_SDPA = _ATEN.scaled_dot_product_attention.default


def spell_masks(program: Program) -> GraphModule:
    """A clone of an fx program's graph whose attention masks are 0 and -inf instead of booleans.

    Where a mask may hide every key of a query (left padding under a causal mask does, padding farther than a
    window too), the attention is written out, and probabilities that are NaN become 0.
    """
    graph = clone(program.graph)
    masks = {node: mask for node in graph.graph.nodes if (mask := _mask(node)) is not None}
    hiding = _hiding(program, graph, list(dict.fromkeys(masks.values())))
    additive: dict[Node, Node] = {}
    for node, mask in masks.items():
        if mask not in additive:
            additive[mask] = _additive(mask, node.args[0].meta["val"].dtype)
        if mask in hiding:
            _write_out(node, additive[mask], hides=True)
        else:
            node.replace_input_with(mask, additive[mask])
    for node in graph.graph.find_nodes(op="call_function", target=_SDPA):
        if node.args[0].meta["val"].dim() != _RANK:
            _write_out(node, _mask(node), hides=False)
    graph.recompile()
    return graph


def _mask(node: Node) -> Node | None:
    """The mask of an attention; None of any other node, and of an attention without one."""
    found: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    return found if node.target is _SDPA else None


def _additive(mask: Node, dtype: torch.dtype) -> Node:
    if mask.meta["val"].dtype != torch.bool:
        return mask
    with mask.graph.inserting_after(mask):
        allowed = mask.graph.call_function(_ATEN.where.Scalar, (mask, 0.0, -math.inf))
    with mask.graph.inserting_after(allowed):
        return mask.graph.call_function(_ATEN.to.dtype, (allowed, dtype))


def _hiding(program: Program, graph: GraphModule, masks: list[Node]) -> set[Node]:
    """The masks that may hide every key of some query.

    One that depends on nothing but masks of tokens, each of which keeps a token, is tried with every token
    alone: what none of these hides from a query, no other choice of tokens does. Whatever else a mask is
    computed from (a mask of queries and keys, lengths, ids) may leave a query without keys.
    """
    tokens = {spec.name for spec in program.inputs if spec.role in MASKS}
    found = {mask for mask in masks if not _sources(mask) <= tokens}
    tried = [mask for mask in masks if mask not in found]
    if not tried:
        return found
    values: dict[Node, Node] = {}
    alone = torch.fx.Graph()
    alone.graph_copy(graph.graph, values)
    alone.output(tuple(values[mask] for mask in tried))
    alone.eliminate_dead_code()
    module = GraphModule(graph, alone)
    with torch.no_grad():
        for arrays in (*_single_tokens(program), _long(program, tried)):
            given = [torch.from_numpy(array) for array in arrays.values()]
            for mask, value in zip(tried, module(*given), strict=True):
                hidden = ~value if value.dtype == torch.bool else torch.isneginf(value)
                if hidden.all(-1).any():
                    found.add(mask)
    return found


def _sources(mask: Node) -> set[str]:
    """The inputs whose values a mask is computed from; their sizes are no values."""
    stack, seen, found = [mask], {mask}, set()
    while stack:
        node = stack.pop()
        if node.op == "placeholder":
            found.add(node.name)
        if symbolic(node) or packet(node).endswith("_like") or packet(node).startswith("aten.new_"):
            continue
        for operand in node.all_input_nodes:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return found


def _single_tokens(program: Program) -> Iterator[Feed]:
    """Feeds whose masks keep one token a row, each token once."""
    sizes = {symbol: min(max(_SHORT, low), high) for symbol, (low, high) in program.symbols.items()}
    sizes = settled(program, sizes)
    arrays = feed(program, sizes)
    masks = [spec for spec in program.inputs if spec.role in MASKS]
    longest = max((arrays[spec.name].shape[-1] for spec in masks), default=1)
    rows = min((arrays[spec.name].shape[0] for spec in masks), default=1)
    for start in range(0, longest, rows):
        chosen = start + np.arange(rows)
        kept = {spec.name: np.eye(arrays[spec.name].shape[-1], dtype=bool) for spec in masks}
        yield arrays | {
            spec.name: spec.masking(kept[spec.name][chosen % len(kept[spec.name])]) for spec in masks
        }


def _long(program: Program, masks: Sequence[Node]) -> Feed:
    """One token and padding, longer than windows are wide where the masks stay within LARGEST numbers."""
    fixed = max(prod(size for size in mask.meta["val"].shape if isinstance(size, int)) for mask in masks)
    length = isqrt(LARGEST // fixed)
    padded = {size for spec in program.inputs if spec.role in MASKS for size in spec.shape} - {"batch"}
    sizes = {
        symbol: min(max(length, low), high) if symbol in padded else low
        for symbol, (low, high) in program.symbols.items()
    }
    return feed(program, sizes, "single")


def write_out(graph: GraphModule) -> int:
    """Writes every attention out as products and a softmax, in place; returns how many there were.

    Masks that hide every key of a query are `spell_masks`' concern; boolean ones are spelled there too.
    """
    nodes = graph.graph.find_nodes(op="call_function", target=_SDPA)
    for node in nodes:
        _write_out(node, _mask(node), hides=False)
    graph.recompile()
    return len(nodes)


def _write_out(node: Node, mask: Node | None, hides: bool) -> None:
    """softmax(q k^T scale + mask) v; where rows may be all hidden, their probabilities, NaN, become 0."""
    query, key, value = cast(tuple[Node, Node, Node], node.args[:3])
    given = bind(node)
    scale = given.get("scale")
    scale = scale if scale is not None else query.meta["val"].shape[-1] ** -0.5
    graph = node.graph
    with graph.inserting_before(node):
        add = graph.call_function
        if given.get("enable_gqa"):
            key, value = (_repeat(x, query) for x in (key, value))
        scores = add(_ATEN.matmul.default, (query, add(_ATEN.transpose.int, (key, -2, -1))))
        scores = add(_ATEN.mul.Tensor, (scores, scale))
        if given.get("is_causal"):
            mask = _causal(query, key)
        if mask is not None:
            scores = add(_ATEN.add.Tensor, (scores, mask))
        weights = add(_ATEN.softmax.int, (scores, -1))
        if hides:
            weights = add(_ATEN.where.ScalarSelf, (add(_ATEN.isnan.default, (weights,)), 0.0, weights))
        context = add(_ATEN.matmul.default, (weights, value))
    node.replace_all_uses_with(context)
    graph.erase_node(node)


def _repeat(x: Node, query: Node) -> Node:
    """(..., key heads, length, head) with every head as often as query heads share it."""
    add = x.graph.call_function
    heads = x.meta["val"].shape[-3]
    groups = query.meta["val"].shape[-3] // heads
    wide = [-1] * (x.meta["val"].dim() + 1)
    wide[-3] = groups
    apart = add(_ATEN.expand.default, (add(_ATEN.unsqueeze.default, (x, -3)), wide))
    return add(_ATEN.flatten.using_ints, (apart, -4, -3))


def _causal(query: Node, key: Node) -> Node:
    """(query length, key length): 0 on and below the diagonal, -inf above."""
    add = query.graph.call_function
    shape = [add(_ATEN.sym_size.int, (x, x.meta["val"].dim() - 2)) for x in (query, key)]
    hidden = add(_ATEN.full.default, (shape, -math.inf), {"dtype": query.meta["val"].dtype})
    return add(_ATEN.triu.default, (hidden, 1))

"""Stack: layers that repeat, by equality of what their blocks are made of."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from .base import Attention, FeedForward, Linear, Stack

Layer = tuple[Attention | FeedForward, ...]


def stacks(blocks: Iterable[Attention | FeedForward]) -> tuple[Stack, ...]:
    """Runs of at least two equal layers. A layer starts at each attention that is not a cross-attention.

    Args:
        blocks: in topological order.
    """
    layers: list[list[Attention | FeedForward]] = []
    for block in blocks:
        if isinstance(block, Attention) and not block.cross:
            layers.append([])
        if layers:
            layers[-1].append(block)
    runs: list[list[Layer]] = []
    signature = None
    for layer in map(tuple, layers):
        described = tuple(map(describe, layer))
        if described != signature:
            runs.append([])
            signature = described
        runs[-1].append(layer)
    return tuple(Stack(tuple(run), shared=_shared(run)) for run in runs if len(run) > 1)


def describe(block: Attention | FeedForward) -> Hashable:
    """Everything about a block but its weights and its mask: equal for layers of one structure."""
    if isinstance(block, Attention):
        projections = tuple(_size(linear) for linear in (block.q, block.k, block.v, block.o))
        sizes = (block.heads, block.kv_heads, block.head_dim, round(block.scale, 6), round(block.softcap, 6))
        return (
            "attention",
            *sizes,
            block.causal,
            block.rotary,
            block.cross,
            block.q_norm is None,
            *projections,
        )
    gate = None if block.gate is None else _size(block.gate)
    return "feed_forward", block.width, block.activation, _size(block.up), gate, _size(block.down)


def _size(linear: Linear | None) -> Hashable:
    if linear is None:
        return None
    return linear.in_features, linear.out_features, linear.bias is None, linear.groups


def _shared(run: list[Layer]) -> bool:
    """Whether every layer has the same weights (ALBERT: Lan et al., 2020, arXiv:1909.11942)."""
    weights = {tuple(w for block in layer for w in _weights(block)) for layer in run}
    return len(weights) == 1


def _weights(block: Attention | FeedForward) -> list[object]:
    if isinstance(block, Attention):
        linears = [block.q, block.k, block.v, block.o]
    else:
        linears = [block.up, block.gate, block.down]
    return [linear.weight for linear in linears if linear is not None]

"""Why a layer cannot be made narrow inside."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.blocks.base import Attention, FeedForward, Linear
from ....ir.blocks.walk import bare
from ....ir.values import Value
from ...common.between import between


def linears_of(block: Attention | FeedForward) -> list[Linear]:
    """The products of a block."""
    parts = (
        (block.q, block.k, block.v, block.o)
        if isinstance(block, Attention)
        else (block.up, block.gate, block.down)
    )
    return [part for part in parts if part is not None]


def heads_unfit(attention: Attention, wide: int, width: int, reads: str) -> str:
    """Empty where so many features fall into its heads and nothing depends on the size of a head.

    Args:
        wide: features of the stream. width: of the bottleneck.
    """
    heads, sides = attention.heads, (attention.q, attention.k, attention.v)
    if attention.o is None or None in sides or attention.o.root != attention.root:
        return "its queries, keys, values or results come of no single product"
    if width % heads:
        near = [count for count in (width // heads * heads, (width // heads + 1) * heads) if count]
        return f"{width} features don't fall into its {heads} heads: give width={' or '.join(map(str, near))}"
    size = width // heads
    if size > attention.head_dim:
        return f"a head of {size} features is no narrower than its {attention.head_dim}"
    inputs = {side.input for side in sides if side is not None}
    if attention.cross or len(inputs) > 1:
        return "its keys and values come of another value than its queries"
    if attention.shifted or attention.products:
        return "more than products gives its scores"
    if size < attention.head_dim and attention.rotary:
        keeps = heads * attention.head_dim
        mend = f": width={keeps} keeps them" if keeps < wide else ""
        return f"positions turn the {attention.head_dim} features of a head, and {size} would be left{mend}"
    if attention.q_norm is not None or attention.k_norm is not None:
        return "queries and keys are normalised over the features of a head"
    if reads != "bottleneck" and len({side.root for side in sides if side is not None}) < 3:
        return "one product gives queries, keys and values, of one value: give attention=bottleneck"
    return ""


def weights_unfit(blocks: Sequence[Attention | FeedForward]) -> str:
    """Why the products of an attention and a feed-forward cannot be written anew; empty where they can."""
    for linear in (linear for block in blocks for linear in linears_of(block)):
        if linear.axis != -1 or linear.groups != 1:
            return f"{linear.root.name} is a convolution"
        if linear.weight.op != "const" or "float" not in str(linear.weight.dtype):
            return f"the weight of {linear.root.name} is computed"
        if linear.bias is not None and (linear.bias.op != "const" or len(linear.bias.shape or ()) != 1):
            return f"the bias of {linear.root.name} is no vector of its own"
    ff = blocks[1]
    assert isinstance(ff, FeedForward)
    if ff.gate is not None and ff.gate.root == ff.up.root and ff.up_features == ff.gate_features:
        return f"{ff.up.root.name} is gate and value at once"
    first = {linear.input for linear in linears_of(ff)[:-1]}
    if first != {ff.input} or ff.down.root != ff.root:
        return f"the feed-forward at {ff.root.name} is of low rank: factorise-linear belongs behind"
    return ""


def read_elsewhere(entry: Value, exit: Value) -> str:
    """What is computed in a layer and read by more than the layer; empty where nothing is."""
    start, end = bare(entry).native, bare(exit).native
    inside = between(start, end)
    for node in inside:
        if node is not end and any(user not in inside for user in node.users):
            return str(node.name)
    return ""

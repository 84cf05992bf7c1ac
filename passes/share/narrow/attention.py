"""Why the heads of an attention cannot be made narrow."""

from __future__ import annotations

from ....ir.blocks.base import Attention


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

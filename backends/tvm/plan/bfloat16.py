"""Which attentions multiply in bfloat16: the graph rounds all four factors of their two products."""

from __future__ import annotations

import math

from ....ir.blocks.base import Attention
from ....ir.blocks.scores import times
from ....ir.blocks.walk import LAYOUT, passes
from ....ir.values import Value


def in_bfloat16(attention: Attention) -> bool:
    """Whether the kernel's own rounding is that of the graph."""
    products = (attention.scored, attention.weighed)
    return all(
        product is not None and product.op == "matmul" and all(map(_rounded, product.inputs))
        for product in products
    )


def _rounded(factor: Value | None) -> bool:
    """Whether a factor is rounded, and as the kernel rounds it: before it is multiplied by a number, which it
    is at the end, or where that number is a power of two."""
    found = False
    while factor is not None:
        number, source = times(factor), factor.inputs[0] if factor.inputs else None
        if number is not None:
            if found and math.frexp(number[0])[0] != 0.5:
                return False
            factor = number[1]
        elif passes(factor) or factor.op in LAYOUT:
            found = found or (factor.op == "cast" and source is not None and source.dtype == "bfloat16")
            factor = source
        else:
            break
    return found

"""Which attentions multiply in bfloat16: the graph rounds all four factors of their two products."""

from __future__ import annotations

from ....ir.blocks.base import Attention
from ....ir.blocks.scores import times
from ....ir.blocks.walk import LAYOUT, passes
from ....ir.values import Value


def in_bfloat16(attention: Attention) -> tuple[float, float] | None:
    """What queries and keys are multiplied by, behind their projections, before they are rounded; None where
    not all four factors are, or the number is 0."""
    scored, weighed = attention.scored, attention.weighed
    if scored is None or weighed is None or {scored.op, weighed.op} != {"matmul"}:
        return None
    numbers = [_before(factor) for product in (scored, weighed) for factor in product.inputs]
    query, key, *others = numbers
    return None if not query or not key or None in others else (query, key)


def factors(attention: Attention) -> tuple[Value, Value, Value]:
    """Queries, keys and values as the kernel reads them, which rounds them itself."""
    q, k, v = attention.query, attention.key, attention.value
    return (_unrounded(q), _unrounded(k), _unrounded(v)) if in_bfloat16(attention) else (q, k, v)


def _unrounded(value: Value) -> Value:
    """What a value was before it was rounded and cast back, where that is what it is."""
    half = value.inputs[0] if value.op == "cast" else None
    source = half.inputs[0] if half is not None and half.op == "cast" and half.dtype == "bfloat16" else None
    return value if source is None or source.dtype != value.dtype else source


def _before(factor: Value | None) -> float | None:
    """What a factor is multiplied by before it is rounded; None where it isn't."""
    found: float | None = None
    while factor is not None:
        number, source = times(factor), factor.inputs[0] if factor.inputs else None
        if number is not None:
            found, factor = None if found is None else found * number[0], number[1]
        elif passes(factor) or factor.op in LAYOUT:
            rounded = factor.op == "cast" and source is not None and source.dtype == "bfloat16"
            found = 1.0 if rounded and found is None else found
            factor = source
        else:
            break
    return found

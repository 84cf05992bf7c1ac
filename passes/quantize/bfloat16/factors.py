"""What a product multiplies: where it is rounded to bfloat16, and whether it is already."""

from __future__ import annotations

from ....ir.blocks.scores import times
from ....ir.values import Value


def narrow(factor: Value | None) -> bool:
    """Whether a factor was rounded to bfloat16 and cast back."""
    half = factor.inputs[0] if factor is not None and factor.op == "cast" else None
    return half is not None and half.dtype == "bfloat16"


def rounded_at(product: Value, factor: Value) -> tuple[Value, Value]:
    """(what is to be rounded, who reads it): a factor before it is multiplied by numbers, where only this
    product reads the result: a kernel multiplies the sums by them, and rounds nothing twice."""
    reader = product
    while (number := times(factor)) is not None and len(factor.users) == 1:
        reader, factor = factor, number[1]
    return factor, reader

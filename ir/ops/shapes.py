"""Shape and dtype of an operator's result, where the graph itself doesn't say: as its row in table.py tells.

Files from older exporters carry no shapes inside, and nor does what a pass has just inserted.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..values import GraphValue
from .elementwise import shape_broadcast
from .symbolic import Attrs, Shape
from .table import OPERATORS


def infer(op: str, inputs: Sequence[GraphValue | None], attrs: Attrs, index: int) -> Shape | None:
    """The shape of result `index` of an operator, as far as it follows from its operands."""
    row = OPERATORS.get(op)
    if row is None or row.shape is None:
        return None
    return row.shape([None if value is None else value.shape for value in inputs], attrs, index)


def infer_dtype(op: str, inputs: Sequence[GraphValue | None], attrs: Attrs) -> str | None:
    """The dtype's name, as far as it follows."""
    row = OPERATORS.get(op)
    dtype = None if row is None else row.dtype
    return dtype(inputs, attrs) if callable(dtype) else dtype


def broadcasts(op: str) -> bool:
    """Whether an operator's operands are broadcast to each other."""
    return op in OPERATORS and OPERATORS[op].shape is shape_broadcast

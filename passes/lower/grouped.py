"""Products of rows that are sorted by group (experts of a mixture), a matrix a group, for the exporter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20

op: Any = opset20
# transformers' own operator under torch.export, and PyTorch's, by "namespace::name".
_NAMES = ("transformers::grouped_mm_fallback", "aten::_grouped_mm")


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export takes as custom_translation_table: the operators that are registered here."""
    table = {}
    for name in _NAMES:
        space, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, space), operator, None)
        if packet is not None:
            table[packet.default] = _grouped_mm
    return table


def _grouped_mm(input: Any, weight: Any, offs: Any, *_: Any, **__: Any) -> Any:
    """(rows, in), (groups, in, out) and (groups,), the end of each group's rows, to (rows, out)."""
    groups = weight.shape[0]
    ends = op.Concat(op.Constant(value_ints=[0]), op.Cast(offs, to=7), axis=0)
    parts = []
    for group in range(groups):
        first, last, next_ = (op.Constant(value_ints=[group + k]) for k in range(3))
        rows = op.Slice(
            input, op.Slice(ends, first, last), op.Slice(ends, last, next_), op.Constant(value_ints=[0])
        )
        matrix = op.Gather(weight, op.Constant(value_int=group), axis=0)
        parts.append(op.MatMul(rows, matrix))
    return op.Concat(*parts, axis=0)

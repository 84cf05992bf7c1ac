"""Attention as one operator."""

from __future__ import annotations

from ..values import GraphValue
from .axes import Atom, Merged
from .coupled import Coupled
from .symbolic import Attrs, Shape, Shapes, of_first


@of_first
def shape_sdpa(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    value = shapes[2]
    return None if value is None else (*first[:-1], value[-1])


@of_first
def shape_attention(first: Shape, shapes: Shapes, attrs: Attrs, index: int) -> Shape | None:
    """ONNX's own, of queries, keys and values with four axes, or with heads side by side in three."""
    value = shapes[2]
    if index or value is None or len(value) != len(first):
        return None
    if len(first) == 4:
        return (*first[:-1], value[-1])
    heads, groups = attrs.get("q_num_heads"), attrs.get("kv_num_heads")
    width = value[-1]
    if not (isinstance(width, int) and heads and groups):
        return (*first[:-1], None)
    return (*first[:-1], width * heads // groups)


def couple_sdpa(c: Coupled, v: GraphValue) -> None:
    query, key, value, *rest = (c.of(operand) for operand in v.inputs)
    out = c.axes[v]
    c.same(query[-1], key[-1])
    c.same(key[-2], value[-2])
    c.same(out[-1], value[-1])
    c.same(out[-2], query[-2])
    c.align(out[:-2], query[:-2])
    for operand in (key, value):
        heads = operand[-3] if len(operand) > 2 else None
        if v.attrs["gqa"] and heads is not None and query[-3] is not None and heads.size < query[-3].size:
            c.same(query[-3], Merged((heads, Atom(query[-3].size // heads.size))))
        else:
            c.align(out[-3:-2], operand[-3:-2])
        c.align(out[:-3], operand[:-3])
    for mask in rest:
        c.align((*out[:-1], key[-2]), mask)
    if len(out) == 4:
        c.hint(out[1], "heads")
    c.hint(query[-1], "head_dim")
    c.hint(out[-1], "head_dim")

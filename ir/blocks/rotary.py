"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864), in the spellings people write it.

x*cos + rotate(x)*sin, where rotate is a concatenation of -x2 and x1 (halves, or even and odd places), and
the form that rotates the parts and joins them: [x1*cos - x2*sin, x2*cos + x1*sin]. A part of the features
may be left as it is (partial rotary).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ..values import Value
from .walk import bare

JOINS = {"concat", "stack"}
RESHAPES = {"reshape", "unsqueeze", "squeeze", "transpose"}
OPERATORS = {"ai.onnx::RotaryEmbedding", "com.microsoft::RotaryEmbedding"}


@dataclass(frozen=True)
class Rotary:
    """root: rotated. input: before. body: every value computed from the one to the other."""

    root: Value
    input: Value
    body: tuple[Value, ...]


def rotary(value: Value) -> Rotary | None:
    """The rotation that a value is the result of, or None."""
    value = bare(value)
    if value.op in OPERATORS and value.inputs[0] is not None:
        return Rotary(value, value.inputs[0], (value,))
    body: list[Value] = []
    source = _turned(value, body) or _joined(value, body)
    if source is None or source == value:
        return None
    return Rotary(value, source, tuple(dict.fromkeys(body)))


def _turned(value: Value, body: list[Value]) -> Value | None:
    """x, of x*cos + rotate(x)*sin."""
    if value.op != "add":
        return None
    products = [bare(v) for v in value.inputs if v is not None]
    if len(products) != 2 or any(p.op != "mul" for p in products):
        return None
    for plain, turned in (products, products[::-1]):
        for x in _operands(plain):
            for rotated in _operands(turned):
                inside: list[Value] = []
                if x != rotated and x in _rotation_of(rotated, inside):
                    body += [value, plain, turned, *inside]
                    return x
    return None


def _rotation_of(value: Value, body: list[Value]) -> list[Value]:
    """What x may be, of [-x2, x1]: two parts of x joined, the first of them negated."""
    value = _unwrap(value, body)
    if value.op not in JOINS or len(value.inputs) != 2:
        return []
    body.append(value)
    first, second = (_unwrap(v, body) for v in _operands(value))
    if first.op != "neg" or first.inputs[0] is None:
        return []
    body.append(first)
    return _common([_piece(first.inputs[0], body), _piece(second, body)])


def _joined(value: Value, body: list[Value]) -> Value | None:
    """x, of parts that are rotated, or left as they are, and joined."""
    top = _unwrap(
        value, body, RESHAPES - {"transpose"}
    )  # which is a step of its own: a key's, for the product
    if top.op not in JOINS or len(top.inputs) != 2:
        return None
    body.append(top)
    first, second = (_unwrap(v, body) for v in _operands(top))
    if first.op == "sub" and second.op == "add":
        return _parts(first, second, body)
    for turned, left in ((first, second), (second, first)):
        inner = rotary(turned)
        common = [] if inner is None else _common([_piece(inner.input, body), _piece(left, body)])
        if inner is not None and common:
            body += inner.body
            return common[0]
    return None


def _parts(first: Value, second: Value, body: list[Value]) -> Value | None:
    """x, of x1*cos - x2*sin beside x2*cos + x1*sin."""
    products = [bare(v) for pair in (first, second) for v in pair.inputs if v is not None]
    if len(products) != 4 or any(p.op != "mul" for p in products):
        return None
    pieces = [[p for o in _operands(q) if (p := _piece(o, [])) is not None] for q in products]
    sources = [[s for p in found for s in p.sources] for found in pieces]
    common = [s for s in sources[0] if all(s in other for other in sources[1:])]
    if not common:
        return None
    body += [first, second, *products]
    for product in products:
        for operand in _operands(product):
            inside: list[Value] = []
            piece = _piece(operand, inside)
            body += inside if piece is not None and common[0] in piece.sources else []
    return common[0]


def _operands(value: Value) -> list[Value]:
    return [bare(v) for v in value.inputs if v is not None]


def _unwrap(value: Value, body: list[Value], through: Container[str] = RESHAPES) -> Value:
    """The value under reshapes that put pairs side by side."""
    value = bare(value)
    while value.op in through and value.inputs[0] is not None:
        body.append(value)
        value = bare(value.inputs[0])
    return value


@dataclass(frozen=True)
class Piece:
    """A part of x. sources: what x may be, before and after reshapes. which: the part."""

    sources: tuple[Value, ...]
    which: tuple[object, ...]


def _piece(value: Value, body: list[Value]) -> Piece | None:
    """A slice, split or selection of x, seen through reshapes."""
    value = _unwrap(value, body)
    if value.op not in ("slice", "split", "select") or value.inputs[0] is None:
        return None
    body.append(value)
    a = value.attrs
    sources = [bare(value.inputs[0])]
    while sources[-1].op in ("reshape", "unsqueeze") and sources[-1].inputs[0] is not None:
        sources.append(bare(sources[-1].inputs[0]))
    return Piece(tuple(sources), (value.index, a.get("start"), a.get("step"), a.get("index")))


def _common(pieces: list[Piece | None]) -> list[Value]:
    """What two different pieces are both of."""
    first, second = pieces
    if first is None or second is None or first.which == second.which:
        return []
    return [s for s in first.sources if s in second.sources]

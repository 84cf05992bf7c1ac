"""Embedding: what turns ids, pixels or frames into the first hidden states.

Definition: the largest sum of which one term at least is a lookup of ids in a table of floats, or a
convolution of a graph input (over patches or frames: its weight counts as the table), and of which every
other term is one of these or a parameter (learned positions, whole or sliced). Scaling by a number (BART),
a projection of one term (MobileBERT, OPT), a class token put in front (ViT) and activations over a
convolution (Whisper) belong to it. Tables that only position biases or rotations read are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..view import Value, View
from .base import Embedding, Linear
from .feed_forward import ELEMENTWISE
from .scores import times
from .walk import Statics, bare, passes, users

CONVOLUTIONS = {"conv1d", "conv2d"}
MOVES = {"reshape", "unsqueeze", "squeeze", "expand", "slice", "concat", "pad"}


@dataclass(frozen=True)
class Term:
    """Part of a sum. patches: made by convolutions. pending: a projection that nothing was added to yet."""

    tables: tuple[Value, ...] = ()
    ids: tuple[Value, ...] = ()
    body: tuple[Value, ...] = ()
    patches: bool = False
    pending: bool = False


def embeddings(
    view: View, static: Statics, linears: Mapping[Value, Linear], readers: set[Value]
) -> dict[Value, Embedding]:
    """Every Embedding of a graph by its root, in topological order.

    Args:
        readers: the values that read hidden states: norms, Linears and residual sums.
    """
    terms: dict[Value, Term] = {}
    inside = {v: linear for linear in linears.values() for v in linear.body}
    for value in view.values:
        term = _term(value, terms, static, linears, inside)
        if term is not None:
            terms[value] = term
    outputs = {bare(v) for v in view.outputs}
    found: dict[Value, Embedding] = {}
    absorbed: set[Value] = set()
    for value in reversed(view.values):
        term = terms.get(value)
        if term is None or not term.tables or term.pending or value in absorbed or passes(value):
            continue
        absorbed.update(term.body)
        if value in outputs or any(user in readers or user.op == "add" for user in users(value)):
            found[value] = Embedding(value, term.tables, term.ids, term.body)
    return dict(reversed(found.items()))


def _term(
    value: Value,
    terms: Mapping[Value, Term],
    static: Statics,
    linears: Mapping[Value, Linear],
    inside: Mapping[Value, Linear],
) -> Term | None:
    """What a value is as a part of an embedding, its operands being known; None if it is none."""
    if value.op == "input":
        return None
    operands = [v for v in value.inputs if v is not None]
    if _looks_up(value, static):
        return Term((bare(operands[0]),), (operands[1],), (value,))
    if static(value):
        return Term()
    if value in linears:
        return _projected(value, linears[value], terms)
    if value in inside:
        return None
    if value.op in CONVOLUTIONS:
        return _convolved(value, terms, static)
    parts = [terms[v] for v in operands if v in terms]
    scaled = times(value)
    if scaled is not None and scaled[1] in terms:
        parts = [terms[scaled[1]]]
    elif len(parts) != len(operands) or not any(p.tables for p in parts):
        return None
    if not (
        passes(value)
        or scaled is not None
        or value.op == "add"
        or (value.op in MOVES and _keeps_features(value, parts))
        or (value.op in ELEMENTWISE | {"transpose"} and all(p.patches or not p.tables for p in parts))
    ):
        return None
    return _joined(value, parts)


def _joined(value: Value, parts: list[Term]) -> Term:
    with_tables = [p for p in parts if p.tables]
    return Term(
        tuple(t for p in parts for t in p.tables),
        tuple(i for p in parts for i in p.ids),
        tuple(dict.fromkeys([*(b for p in parts for b in p.body), value])),
        patches=all(p.patches for p in with_tables),
        pending=len(with_tables) == 1 and with_tables[0].pending,
    )


def _looks_up(value: Value, static: Statics) -> bool:
    """Whether rows of a table of floats are taken by computed ids."""
    if value.op not in ("embedding", "gather", "index") or len(value.inputs) != 2:
        return False
    if value.attrs.get("axis", 0) != 0 or value.attrs.get("axes", (0,)) != (0,):
        return False
    table = value.inputs[0]
    return (
        table is not None and static(table) and "float" in (table.dtype or "") and len(table.shape or ()) == 2
    )


def _keeps_features(value: Value, parts: list[Term]) -> bool:
    """Whether a move leaves the features on the last axis; patches may be moved at will."""
    if all(p.patches or not p.tables for p in parts) or value.op == "concat":
        return True
    source = value.inputs[0]
    return bool(source is not None and source.shape and value.shape and source.shape[-1] == value.shape[-1])


def _projected(value: Value, linear: Linear, terms: Mapping[Value, Term]) -> Term | None:
    term = terms.get(linear.input)
    if term is None or not term.tables or term.patches:
        return None
    return Term(term.tables, term.ids, (*term.body, *linear.body), pending=True)


def _convolved(value: Value, terms: Mapping[Value, Term], static: Statics) -> Term | None:
    """A convolution of a graph input, or of such a one."""
    x, weight = value.inputs[0], value.inputs[1]
    if x is None or weight is None or not static(weight):
        return None
    if bare(x).op == "input":
        return Term((bare(weight),), (bare(x),), (value,), patches=True)
    term = terms.get(x)
    if term is None or not term.patches:
        return None
    return Term((*term.tables, bare(weight)), term.ids, (*term.body, value), patches=True)

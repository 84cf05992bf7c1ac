"""Embedding: what turns ids, pixels or frames into the first hidden states.

Definition: the largest sum of which one term at least is a lookup of ids in a table of floats, or a
convolution of a graph input (over patches or frames: its weight counts as the table), and of which every
other term is one of these or a parameter (learned positions, whole or sliced). Scaling by a number (BART),
a projection of one term (MobileBERT, OPT), a class token put in front (ViT), activations over a convolution
(Whisper), and what is counted from ids and masks alone, tokens that are zeroed and one number a token (ESM),
belong to it. Tables that only position biases or rotations read are none.

A table may hold codes, small integers: then the lookup is all that turns its rows into floats, by constants
and by lookups of the same ids (scales, zeros).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ops.evaluate import scalar
from ..values import Value, View
from .activation import ELEMENTWISE
from .base import Embedding, Linear
from .scores import times
from .walk import Statics, bare, passes, users

_CONE = 60  # values behind a number that is counted from ids
CONVOLUTIONS = {"conv1d", "conv2d"}
MOVES = {"reshape", "unsqueeze", "squeeze", "expand", "slice", "concat", "pad"}
LOOKUPS = {"embedding", "gather", "index"}
CODES = {"uint8", "int8", "uint4", "int4", "uint2", "int2"}
DECODES = {"cast", "identity", "reshape", "slice", "add", "sub", "mul", "dequantize_linear"}


@dataclass(frozen=True)
class Term:
    """Part of a sum. patches: made by convolutions. pending: a projection that nothing was added to yet.
    rows: rows of tables by one tensor of ids, and nothing else. coded: made of codes."""

    tables: tuple[Value, ...] = ()
    ids: tuple[Value, ...] = ()
    body: tuple[Value, ...] = ()
    patches: bool = False
    pending: bool = False
    rows: bool = False
    coded: bool = False


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
        if value in readers and value not in inside:
            continue  # a norm, an affine map too, comes after an embedding
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
    coded = _coded(value, terms, static)
    if coded is not None:
        return coded
    if _looks_up(value, static):
        return Term((bare(operands[0]),), (operands[1],), (value,), rows=True)
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
    if scaled is None and (counted := _counted(value, terms)) is not None:
        return _joined(value, [counted])
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


def _counted(value: Value, terms: Mapping[Value, Term]) -> Term | None:
    """The term that a value multiplies by one number a token or a row, or has zeros of where a token says so.
    Numbers are counted from ids and masks: one that hidden states make is a gate, no part of an embedding."""
    operands = [v for v in value.inputs if v is not None]
    if value.op in ("mul", "div") and len(operands) == 2:
        pairs = [(operands[0], operands[1])] + ([(operands[1], operands[0])] if value.op == "mul" else [])
    elif value.op == "where" and len(operands) == 3:
        condition, *branches = operands
        pairs = [(x, condition) for x in branches if any(scalar(v) == 0 for v in branches if v is not x)]
    else:
        return None
    for x, by in pairs:
        if x in terms and terms[x].tables and (by.shape or (None,))[-1] == 1 and _told(by, terms):
            return terms[x]
    return None


def _told(value: Value, terms: Mapping[Value, Term]) -> bool:
    """Whether a value comes from graph inputs and numbers alone."""
    stack, seen, inputs = [value], {value}, False
    while stack:
        top = stack.pop()
        if (top in terms and terms[top].tables) or len(seen) > _CONE:
            return False
        if top.op == "const" and len(top.shape or ()) > 1 and "float" in (top.dtype or ""):
            return False  # a weight
        inputs |= top.op == "input"
        new = [v for v in top.inputs if v is not None and v not in seen]
        seen.update(new)
        stack += new
    return inputs


def _coded(value: Value, terms: Mapping[Value, Term], static: Statics) -> Term | None:
    """Rows of codes, or what they stand for so far; None for anything else."""
    operands = [v for v in value.inputs if v is not None]
    if _takes_rows(value) and static(operands[0]):
        table, ids = operands
        if table.dtype in CODES:
            return Term((table,), (ids,), (value,), rows=True, coded=True)
        term = terms.get(ids)  # codes are ids themselves, into what they stand for
        return replace(term, body=(*term.body, value)) if term is not None and term.coded else None
    parts = [terms[v] for v in operands if v in terms and terms[v].rows]
    if len({part.ids for part in parts}) != 1:
        return None
    if not all(v in terms and (terms[v].rows or not terms[v].tables) for v in operands):
        return None
    first = next((part for part in parts if part.coded), None)
    body = tuple(dict.fromkeys([*(b for part in parts for b in part.body), value]))
    if first is not None and value.op in DECODES:
        return replace(first, body=body)
    return replace(parts[0], body=body) if passes(value) else None


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
    table = value.inputs[0] if _takes_rows(value) else None
    return (
        table is not None and static(table) and "float" in (table.dtype or "") and len(table.shape or ()) == 2
    )


def _takes_rows(value: Value) -> bool:
    if value.op not in LOOKUPS or len(value.inputs) != 2:
        return False
    return value.attrs.get("axis", 0) == 0 and value.attrs.get("axes", (0,)) == (0,)


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

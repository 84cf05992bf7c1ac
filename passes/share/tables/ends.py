"""The tables at both ends of a language model: what tokens are looked up in, and what scores each token."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.blocks.walk import LAYOUT, Statics, only_user
from ....ir.program import Program
from ....ir.spec import IDS, Role
from ....ir.values import GraphView, Value
from ....ir.view import view
from ...common.fx_weights import Matrix, find

_KEEPS = {"cast", "identity", "tanh", *LAYOUT}
_BY_NUMBER = {"add", "sub", "mul", "div"}


@dataclass(frozen=True)
class Ends:
    """inputs: tables of tokens, only the decoder's where there are any. outputs: matrices whose product is an
    output. lookups: every table that rows are taken of, positions and types included."""

    inputs: list[Matrix]
    outputs: list[Matrix]
    lookups: list[Matrix]


def ends(program: Program) -> Ends:
    """Those of an fx program, each in the order of first use; one that is both stands in both."""
    graph, static = view(program), Statics()
    roles: dict[Value, Role] = {
        v: spec.role for v, spec in zip(graph.inputs, program.inputs, strict=True) if spec.role in IDS
    }
    read: dict[Role, list[Matrix]] = {role: [] for role in IDS}
    outputs, lookups = [], []
    for matrix in find(program)[0]:
        sources = {_source(graph.of(ids)) for _, ids in matrix.lookups}
        for role in {roles[source] for source in sources if source in roles}:
            read[role].append(matrix)
        if any(_leads_out(graph.of(call), graph, static) for call, *_ in matrix.products):
            outputs.append(matrix)
        if matrix.lookups:
            lookups.append(matrix)
    return Ends(read["decoder_token_ids"] or read["token_ids"], outputs, lookups)


def _source(value: Value) -> Value:
    """What ids are before they were reshaped and the like."""
    while value.op in {"cast", "identity", *LAYOUT} and value.inputs[0] is not None:
        value = value.inputs[0]
    return value


def _leads_out(value: Value, graph: GraphView, static: Statics) -> bool:
    """Whether an output is a value again but for a bias, a scale, a cap and moves."""
    while value not in graph.outputs:
        user = only_user(value)
        if user is None:
            return False
        others = [v for v in user.inputs if v is not None and v != value]
        if user.op not in _KEEPS and not (user.op in _BY_NUMBER and all(static(v) for v in others)):
            return False
        value = user
    return True

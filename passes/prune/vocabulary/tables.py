"""Another vocabulary in the fx graph: tables with other rows, and outputs over other tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from ....ir.blocks.linear import linears
from ....ir.blocks.walk import Statics
from ....ir.errors import PassError
from ....ir.fx.graph import attribute, propagate, set_attribute
from ....ir.program import Program
from ....ir.values import GraphView, Value
from ....ir.view import view
from ...common.memory import memory
from .token_ids import ROLES, Uses, uses

_LABELS = ("sequence-classification", "token-classification", "question-answering")
Made = Callable[[torch.Tensor, int], torch.Tensor]
# What gives each token its own number from its own number, so that fewer tokens change no other's.
_EACH = frozenset({"identity", "dropout", "cast", "tanh", "mul", "add", "sub", "div", "neg"})


def cut(program: Program, kept: Sequence[int]) -> Program:
    """The program with these tokens alone, by their order; its graph is edited in place.

    Args:
        kept: ids in ascending order, those that `required` names among them.

    Raises:
        PassError: as `over`.
    """

    def rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
        chosen = [number for number in kept if number < tensor.shape[axis]]
        return tensor.index_select(axis, torch.tensor(chosen))

    return over(program, {old: number for number, old in enumerate(kept)}, rows)


def over(program: Program, new: Mapping[int, int], made: Made) -> Program:
    """The program over another vocabulary; its graph is edited in place.

    Args:
        new: old id -> new one, of the tokens that `required` names and others that stay.
        made: (tensor, axis of the tokens) -> the tensor over the new ones.

    Raises:
        PassError: the graph uses ids, or tokens' scores, in a way that cannot be followed.
    """
    graph = view(program)
    found = uses(program, graph)
    axes: dict[Node, int] = {}  # of every get_attr node of a tensor that has one for the tokens
    for table in found.tables:
        axes |= dict.fromkeys(table.readers, 1 if table.turned else 0)
    for head in _heads(program, graph, found):
        axes |= _scores(graph, head, found.rows)
    tokens = found.rows
    shared: dict[Any, Any] = {}
    for node, axis in axes.items():
        tensor = attribute(program.graph, str(node.target))
        where = memory(tensor)
        if where not in shared:
            other = made(tensor.detach(), axis)
            tokens = other.shape[axis]
            trains = isinstance(tensor, torch.nn.Parameter)
            shared[where] = torch.nn.Parameter(other, tensor.requires_grad) if trains else other
        if attribute(program.graph, str(node.target)) is not shared[where]:
            set_attribute(program.graph, str(node.target), shared[where])
    for (node, position), number in zip(found.compared, found.numbers, strict=True):
        if number in new:
            node.args = (*node.args[:position], new[number], *node.args[position + 1 :])
    propagate(program.graph)
    program.graph.recompile()
    inputs = tuple(
        replace(spec, high=tokens) if spec.role in ROLES and spec.high is not None else spec
        for spec in program.inputs
    )
    ids = {key: value for key, value in program.info.items() if key.endswith("_token_id") and value in new}
    return replace(program, inputs=inputs, info={**program.info, **{key: new[ids[key]] for key in ids}})


@dataclass(frozen=True)
class Required:
    """What a graph asks of a vocabulary: ids that it knows by itself. rows, bytes: of its tables. ordered:
    names of what goes by the order of ids."""

    ids: set[int]
    rows: int
    bytes: int
    ordered: Sequence[str]


def required(program: Program) -> Required:
    """What the program asks of a vocabulary.

    Raises:
        PassError: as `over`.
    """
    found = uses(program, view(program))
    known = {value for key, value in program.info.items() if key.endswith("_token_id") and type(value) is int}
    ids = {number for number in known | set(found.numbers) if 0 <= number < found.rows}
    return Required(ids, found.rows, sum(table.tensor.nbytes for table in found.tables), found.ordered)


def _heads(program: Program, graph: GraphView, found: Uses) -> list[Value]:
    """Products that score each token: those with a table, and those whose outputs are as many."""
    calls = {call for table in found.tables for call, *_ in table.products}
    heads = []
    for linear in linears(graph, Statics()).values():
        tied = any(value.native in calls for value in linear.body)
        untied = linear.out_features == found.rows and program.task not in _LABELS
        if tied or untied:
            heads.append(next(value for value in linear.body if value.op in ("linear", "matmul", "conv1d")))
    return heads


def _scores(graph: GraphView, head: Value, rows: int) -> dict[Node, int]:
    """The tensors that a head and what follows it read, and the axis of the tokens in each.

    Raises:
        PassError: something follows that a token's absence would change for others.
    """
    found: dict[Node, int] = {}
    stack, seen = [head], {head}
    while stack:
        value = stack.pop()
        for operand in value.inputs:
            if operand is None or operand in seen or not operand.shape:
                continue
            if operand.op == "const" and isinstance(operand.native, Node):
                axis = (
                    0 if value is head and operand == head.inputs[1] and head.attrs.get("transposed") else -1
                )
                if operand.shape[axis] == rows:
                    found[operand.native] = axis % len(operand.shape)
            elif value is not head and operand.shape[-1] == rows:
                raise PassError(
                    f"{value.name} joins the tokens' scores to {operand.name}: it cannot be followed"
                )
        for user in value.users:
            if user.op not in _EACH and not (user.op == "slice" and (user.shape or (0,))[-1] == rows):
                raise PassError(
                    f"{user.name} ({user.op}) reads the scores of all tokens, and fewer would change it"
                )
            if user not in seen:
                seen.add(user)
                stack.append(user)
    return found

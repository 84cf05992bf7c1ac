"""The einsums of a trace that multiply by a parameter, as Linears; those that only move axes, as that."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..ops.contraction import Projection, permutation, projection
from .graph import attribute, call, clone, replace_tensor

_A = torch.ops.aten


def with_linears(gm: GraphModule) -> GraphModule:
    """A graph without such einsums; the graph itself where it has none.

    The parameter becomes the Linear's matrix (outputs, inputs), under its own name. One with other uses, or
    read as different matrices, stays as it is, and so do its einsums.
    """
    if not _matrices(gm) and not _moves(gm):
        return gm
    twin = clone(gm)
    for node, order in _moves(twin).items():
        operand: Any = node.args[1]
        node.replace_all_uses_with(call(twin.graph, _A.permute.default, operand[0], list(order), before=node))
        twin.graph.erase_node(node)
    for reader, forms in _matrices(twin):
        tensor = attribute(twin, str(reader.target))
        form = next(iter(forms.values()))
        sizes = [tensor.shape[axis] for axis in form.weight[: form.outputs]]
        matrix = tensor.detach().permute(form.weight).reshape(math.prod(sizes), -1).contiguous()
        trained = isinstance(tensor, torch.nn.Parameter)
        replace_tensor(twin, reader, torch.nn.Parameter(matrix, tensor.requires_grad) if trained else matrix)
        for node, each in forms.items():
            _rewrite(twin, node, each, sizes)
    twin.recompile()
    return twin


def _einsums(gm: GraphModule) -> list[Node]:
    return [n for n in gm.graph.find_nodes(op="call_function", target=_A.einsum.default) if not n.kwargs]


def _moves(gm: GraphModule) -> dict[Node, tuple[int, ...]]:
    found = {node: permutation(str(node.args[0])) for node in _einsums(gm)}
    return {node: order for node, order in found.items() if order is not None}


def _matrices(gm: GraphModule) -> list[tuple[Node, dict[Node, Projection]]]:
    """(a node that reads it, projections by node) of every parameter that einsums alone read, and alike."""
    readers: dict[str, list[Node]] = {}
    for node in gm.graph.find_nodes(op="get_attr"):
        readers.setdefault(str(node.target), []).append(node)
    answer = []
    for nodes in readers.values():
        forms = {user: _form(gm, user) for node in nodes for user in node.users}
        known = {user: form for user, form in forms.items() if form is not None}
        if known and len(known) == len(forms) and len({form.weight for form in known.values()}) == 1:
            answer.append((nodes[0], known))
    return answer


def _form(gm: GraphModule, node: Node) -> Projection | None:
    """The projection that an einsum of a computed value and a parameter is, or None."""
    if node.target is not _A.einsum.default or node.kwargs:
        return None
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    constant = [v.op == "get_attr" for v in operands]
    if len(constant) != 2 or constant[0] == constant[1]:
        return None
    place = constant.index(True)
    x, weight = operands[1 - place].meta["val"], attribute(gm, str(operands[place].target))
    form = projection(equation, place, x.dim())
    if form is None or weight.dim() != len(form.weight) or x.dtype != weight.dtype:
        return None
    inner = (form.x[form.rows :], form.weight[form.outputs :])
    # einsum repeats an axis of 1, and a product doesn't.
    if any(x.shape[a] != weight.shape[b] for a, b in zip(*inner, strict=True)):
        return None
    return form


def _rewrite(gm: GraphModule, node: Node, form: Projection, sizes: list[int]) -> None:
    """Puts the Linear in place of the einsum. sizes: of the parameter's output axes."""
    operands: Any = node.args[1]
    weight = next(v for v in operands if v.op == "get_attr")
    x = next(v for v in operands if v is not weight)
    add: Any = lambda target, *args: call(gm.graph, target, *args, before=node)
    x = _permuted(add, x, form.x)
    if len(form.x) - form.rows > 1:
        x = add(_A.flatten.using_ints, x, form.rows, -1)
    y = add(_A.linear.default, x, weight)
    if form.outputs > 1:
        y = add(_A.unflatten.int, y, form.rows, sizes)
    node.replace_all_uses_with(_permuted(add, y, form.result))
    gm.graph.erase_node(node)


def _permuted(add: Any, value: Node, order: tuple[int, ...]) -> Node:
    return value if order == tuple(sorted(order)) else add(_A.permute.default, value, list(order))

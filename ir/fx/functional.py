"""Programs without operators that write into their operands."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node


def mutates(node: Node) -> bool:
    """Whether an operator writes into one of its operands."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def functional(program: Any) -> Any:
    """A torch.export.ExportedProgram without such operators; dropouts stay.

    torch's own way is another trace, which takes longer than the first: it is taken where a write can't be
    seen to concern one tensor alone.
    """
    _write_anew(program.graph)
    if not any(mutates(node) for node in program.graph.nodes):
        program.graph_module.recompile()
        return program
    ours, theirs = torch.ops.graphwright.dropout.default, torch.ops.aten.dropout.default
    _retarget(program.graph_module, theirs, ours)  # or torch.export would drop them
    program = program.run_decompositions({})
    _retarget(program.graph_module, ours, theirs)
    return program


def _write_anew(graph: Graph) -> None:
    """x.add_(y), where nothing else lies in x's memory, becomes x.add(y), for all that reads x later."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in [node for node in graph.nodes if mutates(node)]:
        twin, written = _twin(node), node.args[0]
        if twin is None or not isinstance(written, Node) or not _fresh(written):
            continue
        later = {user for user in written.users if order[user] > order[node]}
        before = set(written.users) - later - {node}
        if any(user.op == "output" for user in later) or any(map(_shares, before)):
            continue
        node.target = twin
        written.replace_all_uses_with(node, delete_user_cb=later.__contains__)


def _twin(node: Node) -> Any:
    """The operator that gives what this one writes into its first operand, in the same type."""
    schema = node.target._schema  # type: ignore[union-attr]
    writes = [
        argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments
    ]
    space, _, name = schema.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    types = {each.meta["val"].dtype for each in node.all_input_nodes if "val" in each.meta}
    if not name.endswith("_") or writes != [True] + [False] * (len(writes) - 1) or packet is None:
        return None
    if types - {torch.bool} not in ({node.meta["val"].dtype}, set()):  # a sum would take the wider type
        return None
    return getattr(packet, schema.overload_name or "default", None)


def _fresh(node: Node) -> bool:
    """Whether a tensor lies in memory of its own."""
    return node.op == "call_function" and not mutates(node) and not _shares(node)


def _shares(node: Node) -> bool:
    """Whether what an operator gives may lie in its operands' memory."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(result.alias_info is not None for result in schema.returns)


@torch.library.custom_op("graphwright::dropout", mutates_args=())
def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Stands for aten.dropout while a program is made functional."""
    return x.clone()


@_dropout.register_fake
def _(x: Tensor, p: float, train: bool) -> Tensor:
    return torch.empty_like(x)


def _retarget(module: GraphModule, old: Any, new: Any) -> None:
    for graph in [part for part in module.modules() if isinstance(part, GraphModule)]:
        for node in graph.graph.find_nodes(op="call_function", target=old):
            node.target = new
        graph.recompile()

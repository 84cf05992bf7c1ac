"""Tables of an fx program that tokens look up, and the two matrices that take the place of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Blocks, Embedding, Linear
from ....ir.blocks.walk import only_user
from ....ir.fx.graph import add_tensor, attribute, call, propagate, prune, replace_tensor
from ....ir.fx.operators import canonical
from ....ir.program import Program
from ....ir.spec import IDS
from ....ir.values import GraphView, Value
from ....ir.view import view
from ...common.fx_weights import Matrix, find

aten = torch.ops.aten
_CARRY = frozenset({"cast", "identity", "reshape", "unsqueeze", "squeeze", "expand", "transpose", "slice"})


@dataclass
class Table:
    """A table (tokens, features) that ids of tokens are looked up in.

    heads: products that read it as a matrix of (tokens, features), those of a language model's head.
    reason: why it stays as it is, empty where it need not.
    """

    matrix: Matrix
    heads: list[Node] = field(default_factory=list)
    reason: str = ""


def tables(program: Program) -> list[Table]:
    """Every table of the embedding blocks of an fx program that tokens are looked up in, in graph order."""
    graph = view(program)
    blocks = recognise(graph)
    ids = {v for v, spec in zip(graph.inputs, program.inputs, strict=True) if spec.role in IDS}
    looked: dict[Node, tuple[Value, Embedding]] = {}
    for block in blocks.embedding:
        for value in block.body:
            if len(value.inputs) == 2 and source(value.inputs[1]) in ids:
                looked[value.native] = value, block
    found = []
    for matrix in find(program)[0]:
        mine = [looked[node] for node, _ in matrix.lookups if node in looked]
        if mine:
            heads = [one for one in blocks.linear if one.weight.native in matrix.readers]
            reasons = [_widened(value, block, blocks, graph.outputs) for value, block in mine]
            reasons += [
                f"{one.root.name} multiplies by it the other way round"
                for one in heads
                if one.axis != -1 or not one.transposed
            ]
            calls = [call for call, *_ in matrix.products]
            reasons.append(other_reader(matrix, calls, graph))
            found.append(Table(matrix, calls, next(filter(None, reasons), "")))
    return found


def source(value: Value | None) -> Value | None:
    """What ids are before they were reshaped and the like."""
    while value is not None and value.op in _CARRY:
        value = value.inputs[0]
    return value


def _widened(lookup: Value, block: Embedding, blocks: Blocks, outputs: Sequence[Value]) -> str:
    """What says that rows of a table are widened by a product before anything else reads them; or ""."""
    one = widening(lookup, block, blocks, outputs)
    width = (lookup.shape or (0,))[-1]
    if one is None:
        return ""
    return f"it is factorised already, {one.root.name} makes {one.out_features} features of {width}"


def widening(lookup: Value, block: Embedding, blocks: Blocks, outputs: Sequence[Value]) -> Linear | None:
    """The product that widens rows of a table, or the sum that they are part of, before anything else reads
    them."""
    reached, inside = {lookup}, set(block.body)
    for value in block.body:
        if any(operand in reached for operand in value.inputs):
            reached.add(value)
    end = block.root
    for norm in blocks.norm:
        if norm.input == end and all(user in norm.body for user in end.users):
            end = norm.root
    reader = only_user(end)
    width = (lookup.shape or (0,))[-1]
    for one in (one for one in blocks.linear if one.root not in outputs):
        its_own = one.root in inside and any(value in reached for value in one.body)
        if (its_own or reader in one.body) and isinstance(width, int) and one.out_features > width:
            return one
    return None


def other_reader(matrix: Matrix, heads: Sequence[Node], graph: GraphView) -> str:
    """What reads a table and is neither a lookup nor a head; or ""."""
    known = {*heads, *(node for node, _ in matrix.lookups)}
    stack = [user for reader in matrix.readers for user in reader.users]
    while stack:
        node = stack.pop()
        if node in known:
            continue
        if node not in graph or graph.of(node).op not in ("transpose", "identity"):
            return f"{node.name} reads all of it"
        stack += node.users
    return ""


def factorise(program: Program, table: Table, rows: np.ndarray, columns: np.ndarray) -> int:
    """Puts the product of two matrices, rows columns^T, in place of a table; returns their bytes.

            h = embedding(table, ids)  ->  h = linear(embedding(rows, ids), columns)
            y = linear(h, table, b)    ->  y = linear(matmul(h, columns), rows, b)

    Args:
        program: edited in place.
        rows: (tokens, rank), float64; they take the table's name and dtype. columns: (features, rank).
    """
    gm, matrix = program.graph, table.matrix
    order = {node: place for place, node in enumerate(gm.graph.nodes)}
    first = min(matrix.readers, key=lambda node: order[node])
    owner = matrix.name.rpartition(".")[0]
    name = f"{owner}.projection.weight" if owner else f"{matrix.name}_projection"
    wide = add_tensor(gm, name, like(matrix.tensor, columns), before=first)
    narrow = like(matrix.tensor, rows)
    for reader in matrix.readers:
        replace_tensor(gm, reader, narrow)
    for lookup, _ in matrix.lookups:
        taken = call(gm.graph, lookup.target, *lookup.args, before=lookup, **lookup.kwargs)
        replace_node(lookup, call(gm.graph, aten.linear.default, taken, wide, before=lookup))
    for head in table.heads:
        _narrow(head, first, wide)
    prune(gm)
    propagate(gm)
    gm.recompile()
    return narrow.nbytes + attribute(gm, str(wide.target)).nbytes


def _narrow(head: Node, rows: Node, columns: Node) -> None:
    _, (x, _, *bias), _ = canonical(head)
    few = call(head.graph, aten.matmul.default, x, columns, before=head)
    replace_node(head, call(head.graph, aten.linear.default, few, rows, *bias, before=head))


def replace_node(old: Node, new: Node) -> None:
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def like(old: torch.Tensor, new: np.ndarray) -> torch.Tensor:
    made = torch.from_numpy(new).to(old.dtype).contiguous()
    return torch.nn.Parameter(made, old.requires_grad) if isinstance(old, torch.nn.Parameter) else made

"""The weights of an fx program that codes can stand for: those of products, and tables of lookups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ...ir.blocks import recognise
from ...ir.blocks.base import Attention, FeedForward
from ...ir.blocks.linear import linears
from ...ir.blocks.walk import Statics
from ...ir.errors import WeightError
from ...ir.fx.graph import attribute
from ...ir.program import Program
from ...ir.values import GraphValue, Value
from ...ir.view import view
from ..manager.contract import Context

_LOOKUPS = {"embedding", "gather", "index"}
_INTEGERS = (torch.uint8, torch.int8)
_FAKE = ("fake_quant", "quantize_per_", "quantized_decomposed")


@dataclass
class Matrix:
    """One tensor, seen as (rows, columns), where a product sums over columns and a lookup takes rows.

    name: the path of the first get_attr node that reads it. readers: every get_attr node that does.
    lookups: the calls that take rows of it by ids, and their ids. products: calls that multiply by it so,
    which of their arguments is the activation, and the axis of its features. turned: stored (columns, rows).
    """

    name: str
    tensor: torch.Tensor
    readers: list[Node] = field(default_factory=list)
    lookups: list[tuple[Node, Node]] = field(default_factory=list)
    products: list[tuple[Node, int, int]] = field(default_factory=list)
    turned: bool = False

    @property
    def rows(self) -> int:
        return int(self.tensor.shape[1 if self.turned else 0])

    @property
    def columns(self) -> int:
        return self.tensor.numel() // max(1, self.rows)

    def numbers(self) -> torch.Tensor:
        """(rows, columns), float32, a copy where it has to be one."""
        tensor = self.tensor.detach()
        return (tensor.T if self.turned else tensor.reshape(self.rows, -1)).float().contiguous()

    @property
    def whole(self) -> bool:
        """Whether something reads more of it than rows."""
        taken = {call for call, _ in self.lookups}
        return any(user not in taken for reader in self.readers for user in reader.users)


def quantized(graph: GraphModule) -> str | None:
    """What shows a graph to be quantized already: integer codes that floats are made from, or a quantizer."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and any(word in str(node.target) for word in _FAKE):
            return str(node.target)
        tensor = attribute(graph, str(node.target)) if node.op == "get_attr" else None
        if (
            isinstance(tensor, torch.Tensor)
            and tensor.dtype in (torch.uint8, torch.int8)
            and tensor.dim() > 1
        ):
            return str(node.target)
    return None


def find(program: Program) -> tuple[list[Matrix], list[str]]:
    """Matrices in the order of their first use, and one sentence for each other float array of two axes or
    more, which stays as it is. A tensor with several names or users is found once."""
    readers = _readers(program.graph)
    names = {reader: name for name, nodes in readers.items() for reader in nodes}
    order = {node: i for i, node in enumerate(program.graph.graph.nodes)}
    found: dict[str, Matrix] = {}
    first: dict[str, int] = {}

    def matrix(value: Value | None, user: Node) -> Matrix | None:
        if value is None or value.native not in names or "float" not in (value.dtype or ""):
            return None
        name = names[value.native]
        first[name] = min(first.get(name, len(order)), order[user])
        if name not in found:
            found[name] = Matrix(name, attribute(program.graph, name), readers[name])
        return found[name]

    looked_at = view(program)
    for value in looked_at.values:
        one = matrix(value.inputs[0], value.native) if _looks_up(value) else None
        ids = value.inputs[1] if one is not None else None
        if one is not None and ids is not None:
            one.lookups.append((value.native, ids.native))
    for linear in linears(looked_at, Statics()).values():
        product = next(v for v in linear.body if v.op in ("linear", "matmul", "conv1d"))
        one = matrix(linear.weight, product.native) if linear.groups == 1 else None
        if one is not None and product.inputs[0] is not None:
            if not one.products and not one.lookups:
                one.turned = not linear.transposed
            call: Node = product.native
            if (
                one.turned != linear.transposed
            ):  # else it sums over rows, as the product with a transpose does
                one.products.append((call, call.args.index(product.inputs[0].native), linear.axis))
    matrices = sorted(found.values(), key=lambda one: first[one.name])
    return matrices, _left(program.graph, [name for name in readers if name not in found])


def grouped(program: Program, matrices: Sequence[Matrix]) -> list[list[Matrix]]:
    """Matrices by the attention or feed-forward that they belong to, in order; tables make the first group,
    and what belongs to no block is a group by itself."""
    blocks = recognise(view(program))
    block_of: dict[Any, int] = {}
    found: list[Attention | FeedForward] = [*blocks.attention, *blocks.feed_forward]
    for number, block in enumerate(found, 1):
        parts = (block.q, block.k, block.v, block.o) if isinstance(block, Attention) else (
            block.up, block.gate, block.down)  # fmt: skip
        for part in parts:
            if part is not None:
                block_of.setdefault(part.weight.native, number)
    groups: dict[Any, list[Matrix]] = {}
    for matrix in matrices:
        places = [block_of[reader] for reader in matrix.readers if reader in block_of]
        groups.setdefault(0 if matrix.lookups else min(places, default=matrix.name), []).append(matrix)
    return list(groups.values())


def choose(
    program: Program, context: Context, unfit: Callable[[Matrix], str]
) -> tuple[list[Matrix], list[str]]:
    """The matrices to code, checked for NaN, and a sentence for what stays as it is.

    Args:
        unfit: why a matrix stays in float; empty if it does not.
    """
    if (what := quantized(program.graph)) is not None:
        return [], [f"the model is quantized already: it has {what}"]
    matrices, notes = find(program)
    chosen = []
    for matrix in matrices:
        if reason := unfit(matrix):
            notes.append(f"{matrix.name}: stays in float, {reason}")
        elif context.allow(f"quantize {matrix.name}"):
            sound(matrix)
            chosen.append(matrix)
    return chosen, notes if chosen else ["no weight to quantize", *notes]


def sound(matrix: Matrix) -> None:
    """Raises WeightError for NaN and infinity."""
    if not matrix.tensor.isfinite().all():
        raise WeightError(
            f"the weight '{matrix.name}' has NaN or infinite values and cannot be quantized: restore it from "
            "a sound checkpoint"
        )


def _readers(graph: GraphModule) -> dict[str, list[Node]]:
    """Every get_attr node of a tensor, by the first path that reads the same memory."""
    firsts: dict[tuple, str] = {}
    readers: dict[str, list[Node]] = {}
    for node in graph.graph.nodes:
        tensor = attribute(graph, str(node.target)) if node.op == "get_attr" else None
        if isinstance(tensor, torch.Tensor):
            memory = tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()
            readers.setdefault(firsts.setdefault(memory, str(node.target)), []).append(node)
    return readers


def _looks_up(value: GraphValue) -> bool:
    if value.op not in _LOOKUPS or len(value.inputs) != 2:
        return False
    if value.attrs.get("axis", 0) != 0 or value.attrs.get("axes", (0,)) != (0,):
        return False
    table, ids = value.inputs
    if table is None or ids is None or not isinstance(ids.native, Node):
        return False
    return len(table.shape or ()) == 2 and "int" in (ids.dtype or "")


def _left(graph: GraphModule, names: list[str]) -> list[str]:
    notes = []
    for name in names:
        tensor = attribute(graph, name)
        if tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel() > max(tensor.shape):
            size = "x".join(map(str, tensor.shape))
            notes.append(f"{name} ({size}) stays in float: neither a product nor a lookup reads it")
    return notes

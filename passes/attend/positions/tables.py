"""Tables that a text's places take rows of, and how long texts may be before those run out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Interpreter, Node

from ....ir.blocks.walk import END
from ....ir.errors import PassError
from ....ir.fx.mode import argument
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ....ir.spec import IDS
from ...common.outputs import arguments, computed

aten = torch.ops.aten
_SHORT, _LONGER = 3, 6  # lengths whose last rows foretell the others'
_KEEP = {"to", "_to_copy", "contiguous", "clone", "detach", "alias"}


@dataclass(frozen=True)
class Table:
    """reader: takes rows along `axis` of `tensor`, a get_attr node, that it sees through `path`. ahead:
    the row of a text's first place. symbol: of the text's length."""

    reader: Node
    tensor: Node
    path: tuple[Node, ...]
    axis: int
    ahead: int
    rows: int
    symbol: str

    @property
    def places(self) -> int:
        return self.rows - self.ahead


def tables(program: Program) -> list[Table]:
    """Those of which a text that is one token longer takes one row more, up to the table's end and beyond:
    buckets of relative positions stay inside."""
    found: list[Table] = []
    taken = [
        (reader, by, *seen) for reader, source, axis, by in _taken(program) if (seen := _shown(source, axis))
    ]
    for symbol in _symbols(program):
        for reader, by, tensor, axis, path in taken:
            short, longer = (_last(program, by, symbol, size) for size in (_SHORT, _LONGER))
            if short is None or longer is None or longer - short != _LONGER - _SHORT:
                continue
            ahead, rows = short - (_SHORT - 1), tensor.meta["val"].shape[axis]
            table = Table(reader, tensor, path, axis, ahead, rows, symbol)
            if 0 <= ahead < rows and _ends(program, table, by, found):
                found.append(table)
    return found


def short(program: Program, length: int) -> list[Table]:
    """Tables that have fewer places than a length."""
    return [table for table in tables(program) if table.places < length]


def tried(program: Program, symbols: Iterable[str], length: int) -> None:
    """Computes all shapes, and which rows are taken, at a length.

    Raises:
        PassError: they don't go together, or there are not as many.
    """
    for symbol in symbols:
        arrays = _arrays(program, symbol, length)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
                given = [mode.from_tensor(x) for x in arguments(program, arrays)]
                Interpreter(program.graph).run(*given)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise PassError(f"texts of {length} tokens are not taken: {reason}") from error
        for reader, source, axis, by in _taken(program):
            rows = source.meta["val"].shape[axis]
            if reader.target is not aten.slice.Tensor and _once(by):
                last = _last(program, by, symbol, length)
                if last is not None and last >= rows:
                    raise PassError(f"{reader.name} takes row {last} of {rows} in a text of {length} tokens")


def _once(by: Node) -> bool:
    """Whether ids are no relation of all places to all."""
    sizes = [str(s) for s in by.meta["val"].shape if not isinstance(s, int)]
    return len(set(sizes)) == len(sizes)


def _ends(program: Program, table: Table, by: Node, before: Sequence[Table]) -> bool:
    """Whether places go on beyond the table's end: those that a table of numbers holds end with it."""
    last, beyond = (_last(program, by, table.symbol, size) for size in (table.places, table.places + 1))
    if last != table.rows - 1:
        return False
    counted = {one.reader for one in before if one.symbol == table.symbol and one.rows == table.rows}
    return beyond is None or beyond >= table.rows or bool(counted & _behind(by))


def _behind(node: Node) -> set[Node]:
    seen, stack = {node}, [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def _symbols(program: Program) -> list[str]:
    return [
        s for s in dict.fromkeys(d for spec in program.inputs for d in spec.shape if isinstance(d, str))
        if s != "batch"
    ]  # fmt: skip


def _taken(program: Program) -> Iterator[tuple[Node, Node, int, Node]]:
    """(reader, what it reads, axis, by) of what takes rows of a fixed number by what is computed; slices
    end at one row more than they take."""
    for node in program.graph.graph.nodes:
        source = node.args[0] if node.args else None
        if node.op != "call_function" or not isinstance(source, Node):
            continue
        pairs: list[tuple[int, object]] = []
        if node.target is aten.embedding.default:
            pairs = [(0, node.args[1])]
        elif node.target in (aten.index_select.default, aten.gather.default):
            pairs = [(node.args[1], node.args[2])]
        elif node.target is aten.index.Tensor:
            pairs = [(axis, ids) for axis, ids in enumerate(node.args[1]) if ids is not None]
        elif node.target is aten.slice.Tensor:
            pairs = [(argument(node, "dim"), argument(node, "end"))]
        shape = getattr(source.meta.get("val"), "shape", ())
        for axis, by in pairs:
            if isinstance(by, Node) and isinstance(axis, int) and isinstance(shape[axis], int):
                yield node, source, axis % len(shape), by


def _last(program: Program, by: Node, symbol: str, size: int) -> int | None:
    """The last row that is taken of a text of so many tokens; None where no integer says so."""
    try:
        (value,) = computed(program, [by], _arrays(program, symbol, size))
    except (RuntimeError, IndexError, ValueError):  # it can't be so long
        return None
    if not isinstance(value, torch.Tensor):
        return int(value) - 1
    return int(value.max()) if value.numel() and not value.is_floating_point() else None


def _arrays(program: Program, symbol: str, size: int) -> Mapping[str, np.ndarray]:
    """Nothing is padding, and places that are given count from 0."""
    sizes = {s: min(max(low, 2), high) for s, (low, high) in program.symbols.items()} | {symbol: size}
    arrays = dict(feed(program, sizes))
    for spec in program.inputs:
        array = arrays[spec.name]
        if spec.role in IDS and spec.high:  # the last is no padding
            arrays[spec.name] = np.full_like(array, spec.high - 1)
        elif spec.role == "position_ids" and array.ndim:
            arrays[spec.name] = np.broadcast_to(np.arange(array.shape[-1]), array.shape).astype(array.dtype)
    return arrays


def _shown(node: Node, axis: int) -> tuple[Node, int, tuple[Node, ...]] | None:
    """(the get_attr node that a value shows, the axis of it, what stands between); None where anything is
    computed."""
    path = []
    while node.op == "call_function":
        args: Any = node.args
        source, rank = node.args[0] if node.args else None, len(node.meta["val"].shape)
        if not isinstance(source, Node) or not isinstance(node.target, torch._ops.OpOverload):
            return None
        name = node.target.overloadpacket._qualified_op_name.partition("::")[2]
        path.append(node)
        if name == "repeat" and any(times != 1 for times in args[1][-len(source.meta["val"].shape) :]):
            return None
        if name in ("expand", "repeat"):
            axis -= rank - len(source.meta["val"].shape)
        elif name == "unsqueeze":
            new = argument(node, "dim") % rank
            if axis == new:
                return None
            axis -= axis > new
        elif name == "slice" and argument(node, "dim") % rank == axis:
            end = argument(node, "end")
            if argument(node, "start") or (end is not None and not (isinstance(end, int) and end >= END)):
                return None
        elif name not in _KEEP | {"slice"}:
            return None
        if axis < 0:
            return None
        node = source
    return (node, axis, tuple(path)) if node.op == "get_attr" else None

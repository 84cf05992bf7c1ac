"""What generic schedules ask of a block, and the steps that all of them take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import ScheduleError

_SPATIAL, _REDUCE = 0, 2  # of tvm.tirx.IterVar.iter_type
_CHEAP = {"if_then_else", "likely", "fabs", "nearbyint", "round"}
_WORTH = 1 << 14  # iterations: about what starting threads costs
_NARROW = 4  # lanes: LLVM does as well with fewer


class UnfitError(Exception):
    """A rule is not for this function."""


@dataclass(frozen=True)
class Fit:
    """bits: of a vector. registers: vectors that a core holds. threads: there are."""

    bits: int
    registers: int
    threads: int

    def lanes(self, dtype: str) -> int:
        """Elements of a vector."""
        return max(1, self.bits // max(8, tvm.runtime.DataType(dtype).bits))


@dataclass(frozen=True)
class Block:
    """A block whose loops are its axes one by one, reductions inside.

    axes: their variables. spatial, reduced: their extents. dtype: of what it writes.
    """

    handle: Any
    node: Any
    axes: tuple[Any, ...]
    spatial: tuple[int, ...]
    reduced: tuple[int, ...]
    dtype: str

    @property
    def work(self) -> int:
        return prod(self.spatial + self.reduced)


def blocks(schedule: Schedule) -> list[Block]:
    """Those of the function, in order.

    Raises:
        UnfitError: one of them is something else.
    """
    return [block(schedule, handle) for handle in schedule.get_child_blocks(schedule.get_sblock("root"))]


def block(schedule: Schedule, handle: Any) -> Block:
    node = schedule.get(handle)
    loops = [schedule.get(loop) for loop in schedule.get_loops(handle)]
    kinds = [int(axis.iter_type) for axis in node.iter_vars]
    extents = [int(axis.dom.extent) for axis in node.iter_vars]
    if [int(loop.extent) for loop in loops] != extents or kinds != sorted(kinds):
        raise UnfitError("no plain loop nest")
    if any(kind not in (_SPATIAL, _REDUCE) for kind in kinds) or not isinstance(
        node.body, tvm.tirx.BufferStore
    ):
        raise UnfitError("axes that depend on each other, or several results")
    count = kinds.count(_SPATIAL)
    return Block(
        handle, node, tuple(axis.var for axis in node.iter_vars),
        tuple(extents[:count]), tuple(extents[count:]), str(node.body.buffer.dtype),
    )  # fmt: skip


def inline(schedule: Schedule) -> None:
    """Folds what is computed element by element into its readers, where that repeats nothing costly."""
    for found in blocks(schedule):
        readers = [block(schedule, handle) for handle in schedule.get_consumers(found.handle)]
        if found.reduced or not readers:
            continue
        repeated = sum(reader.work for reader in readers) > found.work
        multiplied = any(is_product(reader) for reader in readers)
        if repeated and (_costly(found.node) or (multiplied and not _moves(found.node))):
            continue
        try:
            schedule.compute_inline(found.handle)
        except ScheduleError:
            continue  # a result of the function, too


def _costly(node: Any) -> bool:
    """Whether an element takes more than a few instructions."""
    found: list[bool] = []
    look = [
        (tvm.ir.Call, lambda call: found.append(_name(call) not in _CHEAP)),
        (tvm.tirx.Div, lambda _: found.append(True)),
    ]
    tvm_ffi.structural_walk(node.body, look)
    return any(found)


def _name(call: Any) -> str:
    """The operator of a call: TVM keeps some under "tirx", others under "prim"."""
    return str(call.op.name).rpartition(".")[2]


def branches(node: Any) -> bool:
    """Whether a block computes an element one way or another: TVM makes single lanes of such a vector."""
    found: list[bool] = []
    look = (tvm.ir.Call, lambda call: found.append(_name(call) == "if_then_else"))
    tvm_ffi.structural_walk(node.body, look)
    return any(found)


def _moves(node: Any) -> bool:
    """Whether a block only copies."""
    return isinstance(node.body.value, tvm.ir.TensorLoad)


def is_product(found: Block) -> bool:
    """Whether a block sums products of two elements."""
    value = found.node.body.value
    return bool(found.reduced) and isinstance(value, tvm.tirx.Add) and isinstance(value.b, tvm.tirx.Mul)


def step(region: Any, axis: Any) -> int | None:
    """By how many elements a region moves with an axis of the block, along its last axis; None if that isn't
    a number."""
    if not region.region:
        return 0
    found = tvm.sym.detect_linear_equation(region.region[-1].min, [axis])
    return int(found[0]) if len(found) and isinstance(found[0], int | tvm.tirx.IntImm) else None


def depends(region: Any, axis: Any) -> bool:
    """Whether an axis of the block says where a region is."""
    found: list[bool] = []
    tvm_ffi.structural_walk(region.region, (tvm.ir.Var, lambda part: found.append(part.same_as(axis))))
    return any(found)


def divisor(size: int, most: int) -> int:
    """The largest divisor of a size that is at most so large."""
    return next(number for number in range(min(size, most), 0, -1) if size % number == 0)


def fused(schedule: Schedule, loops: Sequence[Any]) -> Any:
    return schedule.fuse(*loops) if len(loops) > 1 else loops[0]


def vectorise(schedule: Schedule, loop: Any, lanes: int) -> None:
    """A loop in vectors, where its extent allows; LLVM sees to the others."""
    extent = int(schedule.get(loop).extent)
    width = divisor(extent, lanes)
    if width >= _NARROW:
        schedule.vectorize(schedule.split(loop, [None, width])[1] if extent > width else loop)


def share(schedule: Schedule, loop: Any, work: int) -> None:
    """A loop over threads, if the work is worth starting them."""
    if work >= _WORTH:
        schedule.parallel(loop)

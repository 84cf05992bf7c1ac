"""Matrix products and convolutions: a tile of the result in registers while the sum runs."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule

from .generic_blocks import Block, Fit, UnfitError, blocks, depends, divisor, fused, is_product, share, step
from .generic_rows import alone

_ROWS = 12
_VECTORS = (1, 2, 3, 4)
_NARROW = 4  # lanes: fewer, and LLVM does better with the loop as it is


def product(schedule: Schedule, fit: Fit) -> None:
    """Schedules a function around its one product, with what follows it element by element inside.

    Raises:
        UnfitError: there is none, or no operand has the result's last axis along its own.
        ScheduleError: TVM finds a step unfit for the function.
    """
    found = blocks(schedule)
    products = [each for each in found if is_product(each)]
    if len(products) != 1 or not _tiles(products[0]):
        raise UnfitError("no product to tile")
    block = products[0]
    readers = schedule.get_consumers(block.handle)
    last = readers[0] if len(readers) == 1 else None
    for each in found:
        if each is not block and not (last is not None and each.handle.same_as(last)):
            alone(schedule, fit, each)
    _tiled(schedule, fit, block, last)


def _tiles(block: Block) -> bool:
    """Whether the last two axes are rows of one operand and neighbours of the other."""
    if len(block.spatial) < 2 or len(block.node.reads) != 2:
        return False
    row, column = block.axes[len(block.spatial) - 2], block.axes[len(block.spatial) - 1]
    left, right = block.node.reads
    if step(right, column) != 1:
        left, right = right, left
    return step(right, column) == 1 and not depends(right, row) and not depends(left, column)


def _tile(fit: Fit, block: Block) -> tuple[int, int, int]:
    """(rows, vectors, lanes): the most products for each load that registers allow."""
    lanes = divisor(block.spatial[-1], fit.lanes(block.dtype))
    room = fit.registers * 3 // 4
    shapes = [
        (divisor(block.spatial[-2], min(_ROWS, room // vectors)), vectors)
        for vectors in _VECTORS
        if block.spatial[-1] // lanes % vectors == 0
    ]
    rows, vectors = max(shapes, key=lambda shape: shape[0] * shape[1] / (shape[0] + shape[1]))
    return rows, vectors, lanes


def _tiled(schedule: Schedule, fit: Fit, block: Block, last: Any) -> None:
    rows, vectors, lanes = _tile(fit, block)
    if lanes < min(_NARROW, block.spatial[-1]):
        raise UnfitError("no vector divides its rows")
    loops = schedule.get_loops(block.handle)
    count = len(block.spatial)
    reduced = loops[count:]
    if last is None:
        last = schedule.cache_write(block.handle, 0, "local")
    else:
        schedule.set_scope(block.handle, 0, "local")
    down, row = schedule.split(loops[count - 2], [None, rows])
    across, vector, lane = schedule.split(loops[count - 1], [None, vectors, lanes])
    schedule.reorder(*loops[: count - 2], across, down, *reduced, row, vector, lane)
    tile = fused(schedule, [*loops[: count - 2], across, down])
    share(schedule, tile, block.work)
    schedule.vectorize(lane)
    schedule.unroll(row)
    schedule.unroll(vector)
    schedule.reverse_compute_at(last, tile, preserve_unit_loops=True)
    *_, line, place = schedule.get_loops(last)
    parts, lane = schedule.split(place, [None, lanes])
    schedule.vectorize(lane)
    schedule.unroll(parts)
    schedule.unroll(line)
    schedule.decompose_reduction(block.handle, reduced[0])

"""Element-wise functions, and those that reduce: row by row, the stages of a row together."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule

from .generic_blocks import Block, Fit, blocks, branches, depends, divisor, fused, share, step, vectorise

_FEW = 4  # lanes: fewer are not worth a stage of their own
_PARTS = 4  # of a whole tensor's reduction, for each thread
_LONG = 1 << 10  # elements of an axis that no vector divides, kept in one piece


def rows(schedule: Schedule, fit: Fit) -> None:
    """Schedules every block.

    Raises:
        ScheduleError: TVM finds a step unfit for the function.
    """
    found = blocks(schedule)
    finals = [each for each in found if not schedule.get_consumers(each.handle)]
    stages = [each for each in found if schedule.get_consumers(each.handle)]
    shared = _shared(finals[0], stages)
    if len(found) == 2 and len(finals) == 1 and _apart(stages[0]) and stages[0].spatial == finals[0].spatial:
        _columns(schedule, fit, stages[0], finals[0])
    elif len(finals) == 1 and stages and shared:
        _together(schedule, fit, finals[0], stages, shared)
    else:
        for each in found:
            alone(schedule, fit, each)


def _shared(final: Block, stages: list[Block]) -> int:
    """How many leading axes all blocks walk along in step."""
    walks = [each.spatial for each in (final, *stages)]
    sizes = zip(*walks, strict=False)
    return next((n for n, size in enumerate(sizes) if len(set(size)) > 1), min(map(len, walks)))


def _together(schedule: Schedule, fit: Fit, final: Block, stages: list[Block], shared: int) -> None:
    """One loop over rows around all stages, so that what lies between them stays in cache."""
    work = sum(each.work for each in (final, *stages))
    lanes = {each.handle: _by_lanes(schedule, fit, each) for each in (*stages, final)}
    row = fused(schedule, schedule.get_loops(final.handle)[:shared])
    for each in (final, *reversed(stages)):
        if each is not final:
            schedule.compute_at(each.handle, row)
        if (partial := lanes[each.handle]) is not None:
            schedule.compute_at(partial, row)
    share(schedule, row, work)
    for each in (*stages, final):
        loops = schedule.get_loops(each.handle)
        if not each.reduced and len(loops) > 1 and not branches(each.node):
            vectorise(schedule, loops[-1], fit.lanes(each.dtype))
    _in_lanes(schedule, [partial for partial in lanes.values() if partial is not None])


def alone(schedule: Schedule, fit: Fit, found: Block) -> None:
    """One block by itself."""
    loops = schedule.get_loops(found.handle)
    if not loops:
        return
    if not found.reduced:
        if not branches(found.node):
            vectorise(schedule, loops[-1], fit.lanes(found.dtype))
        if len(loops) > 1:
            share(schedule, fused(schedule, loops[:-1]), found.work)
    elif not found.spatial:
        _whole(schedule, fit, found)
    elif _along_neighbours(found):
        partial = _by_lanes(schedule, fit, found)
        row = fused(schedule, schedule.get_loops(found.handle)[: len(found.spatial)])
        if partial is not None:
            schedule.compute_at(partial, row)
        share(schedule, row, found.work)
        _in_lanes(schedule, [] if partial is None else [partial])
    else:
        _columns(schedule, fit, found)


def _apart(found: Block) -> bool:
    """Whether a block reduces, and leaves neighbours apart."""
    return bool(found.reduced and found.spatial) and not _along_neighbours(found)


def _columns(schedule: Schedule, fit: Fit, found: Block, last: Block | None = None) -> None:
    """Neighbours stay apart: the last axis that is not reduced goes in vectors, inside of the reduction.

    Args:
        last: what becomes of each element.
    """
    loops = schedule.get_loops(found.handle)
    count, extent = len(found.spatial), found.spatial[-1]
    width = divisor(extent, 4 * fit.lanes(found.dtype))
    if width < _FEW and extent <= _LONG:
        width = extent
    outer, inner = schedule.split(loops[count - 1], [None, width])
    reduced = loops[count:]
    schedule.reorder(*loops[: count - 1], outer, *reduced, inner)
    row = fused(schedule, [*loops[: count - 1], outer])
    share(schedule, row, found.work)
    vectorise(schedule, inner, fit.lanes(found.dtype))
    if last is not None:
        schedule.reverse_compute_at(last.handle, row)
        vectorise(schedule, schedule.get_loops(last.handle)[-1], fit.lanes(last.dtype))
    schedule.decompose_reduction(found.handle, reduced[0])


def _whole(schedule: Schedule, fit: Fit, found: Block) -> None:
    """One number from a whole tensor: threads reduce parts of it, lanes parts of those."""
    loop = fused(schedule, schedule.get_loops(found.handle))
    lanes = divisor(found.work, fit.lanes(found.dtype))
    parts = divisor(found.work // lanes, _PARTS * fit.threads)
    part = schedule.split(loop, [parts, None, lanes])[0]
    of_part = schedule.rfactor(part, 0)
    of_lane = schedule.rfactor(schedule.get_loops(of_part)[-1], 1) if lanes >= _FEW else None
    part = schedule.get_loops(of_part)[0]
    if of_lane is not None:
        schedule.compute_at(of_lane, part)
    share(schedule, part, found.work)
    _in_lanes(schedule, [] if of_lane is None else [of_lane])


def _by_lanes(schedule: Schedule, fit: Fit, found: Block) -> Any:
    """A new block that reduces neighbours lane by lane, before what is left of the block reduces the lanes;
    None where neighbours are not what is reduced."""
    if not found.reduced or not _along_neighbours(found):
        return None
    lanes = divisor(found.reduced[-1], fit.lanes(found.dtype))
    if lanes < _FEW or lanes == found.reduced[-1]:
        return None
    lane = schedule.split(schedule.get_loops(found.handle)[-1], [None, lanes])[1]
    return schedule.rfactor(lane, len(found.spatial))


def _in_lanes(schedule: Schedule, partials: list[Any]) -> None:
    """(row, lane, rest) -> (row, rest, lane), lanes a vector. The last step: TVM can check none after it."""
    starts = []
    for partial in partials:
        _, lane, *rest = schedule.get_loops(partial)
        schedule.reorder(*rest, lane)
        schedule.vectorize(lane)
        starts.append(rest[0])
    for partial, start in zip(partials, starts, strict=True):
        schedule.decompose_reduction(partial, start)


def _along_neighbours(found: Block) -> bool:
    """Whether what is reduced lies side by side in memory."""
    axis = found.axes[-1]
    return any(depends(region, axis) and step(region, axis) == 1 for region in found.node.reads)

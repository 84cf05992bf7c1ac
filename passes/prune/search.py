"""The structure that loses least among those that meet the time, checked on what is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...ir.program import Program
from ..base import Context, Feed
from ..quantize.allocate import allocate
from .importance import scores
from .latency import Timing, table
from .losses import losses
from .surgery import remove
from .units import Units

if TYPE_CHECKING:
    from .to_latency import PruneToLatency

TRIES = 5  # structures built and timed, at most
RESERVE = 1.02  # aimed at beyond the goal: what repeated measurements differ by
ENOUGH = 1.05  # this much beyond the goal is quality given away
SHORT = 0.95  # of the goal is still what was asked for, as far as a clock can tell
JUDGED = 8  # feeds that losses are taken on, at most


@dataclass(frozen=True)
class Found:
    """going: the units that go. speedup: as measured. timed: how many structures were. measured: whether the
    latency table was. missed: why the speed-up is not reached, "" where it is."""

    going: Mapping[Units, Sequence[int]]
    speedup: float
    timed: int
    measured: bool
    missed: str


def search(
    options: PruneToLatency, program: Program, units: Sequence[Units], feeds: Sequence[Feed], context: Context
) -> Found:
    """What to remove from a program for a speed-up.

    Args:
        program: fx, in which the units were found; it is not changed.
        feeds: real inputs.
    """
    timing = Timing(program, context, options.workload)
    known = table(program, units, options.choices, timing, context, options.workload)
    orders = None
    if options.method != "zip":
        ranked = scores(program, units, options.method, context)
        orders = [[int(unit) for unit in each.argsort(kind="stable")] for each in ranked]
    counts = [sorted(times) for times in known.times]
    judged = min(JUDGED, len(feeds))
    weighed = losses(
        program, units, counts, feeds, judged, orders, options.damping, progress=context.progress
    )
    tried: dict[tuple[int, ...], float] = {}
    aim = options.speedup * RESERVE
    smallest = tuple(min(times, key=lambda count: (-times[count], -count)) for times in known.times)

    def going(kept: Sequence[int]) -> dict[Units, list[int]]:
        return {
            one: loss.order[: one.size - count]
            for one, loss, count in zip(units, weighed, kept, strict=True)
            if count < one.size
        }

    for number in range(TRIES):
        context.progress("timing structures", number, TRIES)
        kept = cheapest([loss.loss for loss in weighed], known.times, 1 - 1 / aim) or smallest
        if kept in tried:
            break
        candidate = program.clone()
        remove(candidate, going(kept))
        tried[kept] = timing(candidate)
        if options.speedup <= tried[kept] <= options.speedup * ENOUGH:
            break
        aim = max(1.001, aim * options.speedup * RESERVE / tried[kept])
    best = _best(tried, options.speedup, [loss.loss for loss in weighed])
    missed = ""
    if tried[best] < options.speedup * SHORT:
        missed = (
            f"no structure was found that is {options.speedup:g} times as fast: the best measures "
            f"{tried[best]:.2f}, and that is what is kept"
        )
    return Found(going(best), tried[best], len(tried), known.measured, missed)


def cheapest(
    lost: Sequence[Mapping[int, float]], times: Sequence[Mapping[int, float]], needed: float
) -> tuple[int, ...] | None:
    """How many units each block keeps, for the least sum of losses.

    Args:
        lost, times: for each block, by how many it keeps: its loss, and the time it saves.
        needed: the time to save, in all.

    Returns:
        None where nothing saves so much.
    """
    slack = sum(max(row.values()) for row in times) - needed
    if slack <= 0:
        return None
    costs = [{count: max(row.values()) - time for count, time in row.items()} for row in times]
    found = allocate(
        [{count: row[count] for count in cost} for row, cost in zip(lost, costs, strict=True)], costs, slack
    )
    return tuple(found) if found is not None else None


def _best(
    tried: Mapping[tuple[int, ...], float], speedup: float, lost: Sequence[Mapping[int, float]]
) -> tuple[int, ...]:
    """The least loss among those fast enough, or else the fastest."""
    enough = [kept for kept, ratio in tried.items() if ratio >= speedup]
    if not enough:
        return max(tried, key=lambda kept: tried[kept])
    return min(enough, key=lambda kept: sum(row[count] for row, count in zip(lost, kept, strict=True)))

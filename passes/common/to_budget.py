"""What to keep of each part of a program, so that it is as fast as asked and loses least.

Times and losses of parts are taken to add up; they nearly do, and where they don't what is built says so, the
budget is corrected and the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .allocate import allocate

TRIES = 5  # structures built and timed for a goal, at most
RESERVE = 1.02  # aimed at beyond the goal: what repeated measurements differ by
ENOUGH = 1.05  # this much beyond the goal is quality given away

Kept = tuple[int, ...]  # of each part: units, or features
Rows = Sequence[Mapping[int, float]]


def nearest(
    goal: float,
    lost: Rows,
    times: Rows,
    timed: Callable[[Kept], float],
    tried: dict[Kept, float],
    progress: Callable[[str, int, int], None],
) -> Kept:
    """What loses least of what is timed and reaches a speed-up, or else the fastest.

    Args:
        goal: how many times as fast, above 1.
        lost, times: for each part, by how much it keeps: its loss, and what it saves of the whole's time.
        timed: how many times as fast a structure is. tried: those known, to which others are added.
    """
    aim = goal * RESERVE
    fastest = tuple(
        min(saved, key=lambda kept: (-saved[kept], mine[kept]))
        for saved, mine in zip(times, lost, strict=True)
    )
    for number in range(TRIES):
        progress("timing structures", number, TRIES)
        kept = cheapest(lost, times, 1 - 1 / aim) or fastest
        if kept not in tried:
            tried[kept] = timed(kept)
        if goal <= tried[kept] <= goal * ENOUGH:
            break
        aim = max(1.001, aim * goal * RESERVE / tried[kept])
    enough = [kept for kept, ratio in tried.items() if ratio >= goal]
    if not enough:
        return max(tried, key=lambda kept: tried[kept])
    return min(enough, key=lambda kept: sum(row[one] for row, one in zip(lost, kept, strict=True)))


def cheapest(lost: Rows, times: Rows, needed: float) -> Kept | None:
    """What each keeps, for the least sum of losses.

    Args:
        lost, times: for each, by how much it keeps: its loss, and the time it saves.
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

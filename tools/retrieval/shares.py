"""Work dealt out to threads, of which the one that asks is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def shared(function: Callable[[Task], Result], tasks: Sequence[Task], threads: int) -> list[Result]:
    """What a function makes of each task, in order. Tasks are dealt in turn: they should be alike, and spend
    their time where Python lets other threads go on."""
    hands = min(threads, len(tasks))
    if hands < 2:
        return [function(task) for task in tasks]

    def dealt(hand: int) -> list[Result]:
        return [function(task) for task in tasks[hand::hands]]

    others = [_pool(threads, os.getpid()).submit(dealt, hand) for hand in range(1, hands)]
    heaps = [dealt(0), *(other.result() for other in others)]
    return [heaps[number % hands][number // hands] for number in range(len(tasks))]


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"graphwright-{process}")

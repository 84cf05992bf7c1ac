"""A small search around an analytic choice, by wall clock in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

Choice = TypeVar("Choice")
Timer = Callable[[], float]

MARGIN = 1.03
"""What is not this many times as fast is noise: the analytic choice stays."""
ROUNDS, TRIED = 10, 4  # even: as many begin with one as with the other
TURN = 0.004  # seconds of one
BATCH = 2e-5  # seconds of calls between two looks at the clock, which itself takes 5e-8


def timer(call: Callable[[], object]) -> Timer:
    """What times turns of a call, in seconds a call: the least of a few milliseconds of calls.

    Whatever else the machine does only adds to a call's time; one that waits for a worker that another
    process holds takes many times as long. The first calls, which find cold caches, are made here.
    """
    call()
    once = min(_seconds(call, 1) for _ in range(2))
    calls = max(1, round(BATCH / max(once, 1e-7)))
    batches = max(1, round(TURN / max(once * calls, BATCH)))
    return lambda: min(_seconds(call, calls) for _ in range(batches))


def _seconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def search(
    candidates: Iterable[Choice],
    build: Callable[[Choice], Timer],
    analytic: Choice,
    progress: Callable[[Choice, float], None] = lambda choice, ratio: None,
) -> tuple[Choice, float]:
    """The fastest candidate and how many times as fast as the analytic choice it is.

    The analytic choice and 1 where nothing is more than 3% faster.

    Args:
        candidates: may include the analytic choice.
        build: makes what a choice stands for and returns what times a turn of it, in seconds.
        progress: called with each candidate and its ratio.
    """
    base = build(analytic)
    best, gain = analytic, MARGIN
    for candidate in candidates:
        if candidate == analytic:
            continue
        other = build(candidate)
        ratio = ratio_in_turn(base, other)
        if ratio > gain:  # the luckiest of several seems faster than it is
            ratio = min(ratio, ratio_in_turn(base, other))
        progress(candidate, ratio)
        if ratio > gain:
            best, gain = candidate, ratio
    return best, (gain if best != analytic else 1.0)


def ratio_in_turn(base: Timer, other: Timer) -> float:
    """Times as fast as `base` that `other` is: the median over rounds of A B, B A, A B, ...

    After a few rounds, what is slower in each of them is not timed any more.
    """
    ratios: list[float] = []
    for number in range(ROUNDS):
        if number % 2:
            after, before = other(), base()
        else:
            before, after = base(), other()
        ratios.append(before / after)
        if number + 1 == TRIED and max(ratios) < 1:
            break
    return statistics.median(ratios)

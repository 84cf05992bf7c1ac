"""Tuning of what the kernel library does not cover: the open functions of a module, by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..run.executor import Executor
from .candidates import Builder
from .metaschedule import Measure, evolve
from .schedules import Known, Schedules, open_schedules
from .search import ratio_in_turn, timer
from .tasks import Task, tasks_of

TRIALS = 64
HOPELESS = 2.0
"""Times as slow as the schedule without search: not timed again."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tuned:
    """A function after tuning.

    calls: of it in the module. trials: made now. ms: of one call as it will be built. speedup: over the
    schedule without search; 1 where that stays.
    """

    name: str
    calls: int
    trials: int
    ms: float
    speedup: float


def tune(
    module: Any,
    llvm: Any,
    trials: int = TRIALS,
    progress: Progress = lambda description, done, total: None,
    seed: int = 0,
) -> Iterator[Tuned]:
    """Searches schedules for the open functions of a module, whatever takes longest first.

    What is on record counts: a function that has had its trials is not searched again, and a search that was
    interrupted (Ctrl-C is passed on, everything timed is kept) goes on where it was.

    Args:
        module: legalised and fused, finished kernels marked as such; it is not edited.
        llvm: this machine as a tvm.target.Target.
        trials: candidates for each function, those of earlier runs included.
        progress: called with (description, candidates done, candidates in all).

    Yields:
        Each function once it has had its trials.

    Raises:
        GraphwrightError: what was found can't be written.
    """
    schedules = open_schedules(llvm)
    # TVM's workers belong to the thread that calls, and bind it to a CPU: that must not be the caller's.
    there = Executor(int(llvm.attrs["num-cores"]), lambda: None)
    with Builder(llvm) as builder:
        tasks = there.do(lambda _: tasks_of(module, llvm, schedules, builder))
        wanted = {task.key: _left(schedules, task.key, trials) for task in tasks}
        done = 0
        for task in tasks:
            begun = done
            measure = partial(_measured, task, schedules.known(task.key), builder, there)
            for _ in _search(task, llvm, schedules, measure, wanted[task.key], seed):
                done += 1
                progress(_told(task, schedules), done, sum(wanted.values()))
            best = schedules.known(task.key).best
            seconds = best[0] if best else task.seconds
            yield Tuned(task.name, task.calls, done - begun, 1e3 * seconds, task.seconds / seconds)


def _left(schedules: Schedules, key: str, trials: int) -> int:
    known = schedules.known(key)
    return 0 if known.exhausted else max(trials - known.tried, 0)


def _told(task: Task, schedules: Schedules) -> str:
    best = schedules.known(task.key).best
    return f"{task.name}: {task.seconds / best[0] if best else 1:.2f} times as fast"


def _search(
    task: Task, llvm: Any, schedules: Schedules, measure: Measure, trials: int, seed: int
) -> Iterator[None]:
    """Yields after each candidate, which is on record by then."""
    if not trials:
        return
    known, tried = schedules.known(task.key), 0
    for seconds, trace in evolve(task.module, llvm, trials, known.found, measure, seed + known.tried):
        schedules.add(task.key, seconds=seconds, trace=trace)
        tried += 1
        yield
    if tried < trials:
        schedules.add(task.key, exhausted=True)


def _measured(task: Task, known: Known, builder: Builder, there: Executor, module: Any) -> float | None:
    function = builder.build(module)
    return None if function is None else there.do(lambda _: _seconds(task, function, known.best))


def _seconds(task: Task, function: Any, best: tuple[float, Any] | None) -> float:
    """Of one call, by its ratio to the schedule without search in turn: a machine that slows down in the
    meantime changes nothing. What seems the best so far is timed again, and the slower figure counts."""
    call = partial(function, *task.arguments)
    begin = time.perf_counter()
    call()
    first = time.perf_counter() - begin
    if first > HOPELESS * task.seconds and first > 1e-3:
        return first
    own = timer(call)
    ratio = ratio_in_turn(task.generic, own)
    if task.seconds / ratio < (best[0] if best else task.seconds):
        ratio = min(ratio, ratio_in_turn(task.generic, own))
    return task.seconds / ratio

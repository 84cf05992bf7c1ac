"""Tuning of what the kernel library does not cover: the open functions of a module, by measurement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .candidates import Builder
from .generic import schedule_generic
from .metaschedule import evolve
from .schedules import Schedules, is_open, key_of, open_schedules, workload
from .search import Timer, ratio_in_turn, timer

TRIALS = 64
LEAST = 0.005
"""Of the time that all open functions take together: what takes less is not searched."""
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


@dataclass(frozen=True)
class _Task:
    """A function to tune. call: of a compiled one, on arguments that suit it. generic: times the schedule
    without search, whose seconds are on record."""

    name: str
    calls: int
    key: str
    module: Any
    arguments: tuple[Any, ...]
    generic: Timer
    seconds: float


def tune(
    module: Any,
    llvm: Any,
    trials: int = TRIALS,
    progress: Progress = lambda description, done, total: None,
    seed: int = 0,
) -> list[Tuned]:
    """Searches schedules for the open functions of a module, whatever takes longest first.

    What is on record counts: a function that has had its trials is not searched again, and a search that was
    interrupted (Ctrl-C is passed on, everything timed is kept) goes on where it was.

    Args:
        module: legalised and fused, finished kernels marked as such; it is not edited.
        llvm: this machine as a tvm.target.Target.
        trials: candidates for each function, those of earlier runs included.
        progress: called with (description, candidates done, candidates in all).

    Raises:
        GraphwrightError: what was found can't be written.
    """
    schedules = open_schedules(llvm)
    with Builder(llvm) as builder:
        tasks = _tasks(module, llvm, schedules, builder)
        wanted = {task.key: _left(schedules, task.key, trials) for task in tasks}
        done, tuned = 0, []
        for task in tasks:
            begun = done
            for _ in _search(task, llvm, schedules, builder, wanted[task.key], seed):
                done += 1
                progress(_told(task, schedules), done, sum(wanted.values()))
            best = schedules.known(task.key).best
            seconds = best[0] if best else task.seconds
            tuned.append(Tuned(task.name, task.calls, done - begun, 1e3 * seconds, task.seconds / seconds))
    return tuned


def _left(schedules: Schedules, key: str, trials: int) -> int:
    known = schedules.known(key)
    return 0 if known.exhausted else max(trials - known.tried, 0)


def _told(task: _Task, schedules: Schedules) -> str:
    best = schedules.known(task.key).best
    return f"{task.name}: {task.seconds / best[0] if best else 1:.2f} times as fast"


def _search(task: _Task, llvm: Any, schedules: Schedules, builder: Builder, trials: int, seed: int) -> Any:
    """Yields after each candidate, which is on record by then."""
    if not trials:
        return
    known, tried = schedules.known(task.key), 0
    measure = lambda module: _seconds(task, builder.build(module), known.best)
    for seconds, trace in evolve(task.module, llvm, trials, known.found, measure, seed + known.tried):
        schedules.add(task.key, seconds=seconds, trace=trace)
        tried += 1
        yield
    if tried < trials:
        schedules.add(task.key, exhausted=True)


def _seconds(task: _Task, function: Any, best: tuple[float, Any] | None) -> float | None:
    """Of one call, by its ratio to the schedule without search in turn: a machine that slows down in the
    meantime changes nothing. What seems the best so far is timed again, and the slower figure counts."""
    if function is None:
        return None
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


def _tasks(module: Any, llvm: Any, schedules: Schedules, builder: Builder) -> list[_Task]:
    """Distinct open functions that matter, by the time they take in all."""
    calls = _calls(module)
    names: dict[str, tuple[str, Any]] = {}
    counted: Counter[str] = Counter()
    for variable, function in module.functions_items():
        if is_open(function):
            source = workload(function)
            key = key_of(source)
            names.setdefault(key, (variable.name_hint, source))
            counted[key] += calls[variable.name_hint]
    tasks = []
    for key, (name, source) in names.items():
        function = builder.build(schedule_generic(source, llvm))
        if function is None:
            continue  # what takes this long to compile without search is not worth one
        arguments = tuple(map(_argument, source["main"].params))
        generic = timer(partial(function, *arguments))
        if schedules.known(key).generic is None:
            schedules.add(key, generic=float(np.median([generic() for _ in range(5)])))
        seconds = schedules.known(key).generic
        assert seconds is not None
        tasks.append(_Task(name, max(counted[key], 1), key, source, arguments, generic, seconds))
    whole = sum(task.calls * task.seconds for task in tasks)
    tasks = [task for task in tasks if task.calls * task.seconds >= LEAST * whole]
    return sorted(tasks, key=lambda task: -task.calls * task.seconds)


def _calls(module: Any) -> Counter[str]:
    """How often each function is called by the Relax functions of a module."""
    found: Counter[str] = Counter()

    def visit(value: Any) -> None:
        if isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.call_tir"):
            found[value.args[0].name_hint] += 1

    for _, function in module.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return found


def _argument(buffer: Any) -> Any:
    """Floats around one, which no function finds hard; integers 0, which index anything."""
    shape = tuple(int(size) for size in buffer.shape)
    if "float" in str(buffer.dtype):
        values = np.random.default_rng(0).uniform(0.5, 1.5, shape)
        return tvm.runtime.tensor(values.astype(str(buffer.dtype)))
    return tvm.runtime.tensor(np.zeros(shape, str(buffer.dtype)))

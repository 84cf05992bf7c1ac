"""What there is to tune in a module: its open functions, compiled without search and ready to be timed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..schedule.generic import schedule_generic
from .candidates import Builder
from .schedules import Schedules, is_open, key_of, workload
from .search import Timer, timer

LEAST = 0.005
"""Of the time that all open functions take together: what takes less is not searched."""
FLOOR = 2e-6
"""Seconds of all its calls together: what takes less is not searched either."""


@dataclass(frozen=True)
class Task:
    """A function to tune.

    calls: of it in the module. key, module: its workload. arguments: that suit it. generic: times it as
    scheduled without search; seconds: what is on record of that.
    """

    name: str
    calls: int
    key: str
    module: Any
    arguments: tuple[Any, ...]
    generic: Timer
    seconds: float


def tasks_of(module: Any, llvm: Any, schedules: Schedules, builder: Builder) -> list[Task]:
    """Distinct open functions that matter, by the time they take in all.

    Times on the thread that calls what has not been timed before, and records it.
    """
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
        tasks.append(Task(name, max(counted[key], 1), key, source, arguments, generic, seconds))
    least = max(FLOOR, LEAST * sum(task.calls * task.seconds for task in tasks))
    tasks = [task for task in tasks if task.calls * task.seconds >= least]
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

"""Schedules that a search has found, by function and LLVM target, and their application to a module.

One file a target and TVM version in the cache, a line for each thing learnt, appended at once: a search that
is killed loses the candidate it was timing and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule.database import TuningRecord, Workload
from tvm.s_tir.schedule import ScheduleError

from ...cache import cache_directory
from ..run.versions import PINS
from .jsonl import append_lines, read_lines
from .search import MARGIN

SCHEDULED = "tirx.is_scheduled"
KERNEL = "graphwright.kernel"


@dataclass
class Known:
    """What is on record of one function.

    generic: seconds of a call as scheduled without search; None where it wasn't timed. found: (seconds, trace
    as JSON), one for each candidate that ran. tried: candidates built, those that failed included.
    exhausted: the search has no more candidates.
    """

    generic: float | None = None
    found: list[tuple[float, Any]] = field(default_factory=list)
    tried: int = 0
    exhausted: bool = False

    @property
    def best(self) -> tuple[float, Any] | None:
        """What was found fastest, where it beats the schedule without search by more than noise."""
        if self.generic is None or not self.found:
            return None
        fastest = min(self.found, key=lambda entry: entry[0])
        return fastest if fastest[0] * MARGIN < self.generic else None


class Schedules:
    """The record for one LLVM target, read once; what is added is in the file when the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Known] = defaultdict(Known)
        for line in read_lines(path):
            if isinstance(line, dict) and isinstance(line.get("function"), str):
                self._learn(line)

    def known(self, key: str) -> Known:
        """What is on record of the function with that `key_of`."""
        return self._known[key]

    def add(self, key: str, **learnt: Any) -> None:
        """Record one thing: generic=seconds, exhausted=True, or seconds=... with trace=... (None: it failed).

        Raises:
            GraphwrightError: the file can't be written.
        """
        line = {"function": key, **learnt}
        append_lines(self.path, [line])
        self._learn(line)

    def _learn(self, line: dict[str, Any]) -> None:
        known = self._known[line["function"]]
        if isinstance(line.get("generic"), float):
            known.generic = line["generic"]
        elif line.get("exhausted"):
            known.exhausted = True
        elif "seconds" in line:
            known.tried += 1
            if isinstance(line["seconds"], float) and line.get("trace"):
                known.found.append((line["seconds"], line["trace"]))


def open_schedules(llvm: Any) -> Schedules:
    """The record for a tvm.target.Target; empty where there is none yet."""
    target = hashlib.sha256(str(llvm).encode()).hexdigest()[:16]
    return Schedules(cache_directory() / "tvm" / f"schedules-{PINS['apache-tvm']}-{target}.jsonl")


def is_open(function: Any) -> bool:
    """Whether a function of a module is a PrimFunc that nobody has scheduled, with fixed sizes."""
    if not isinstance(function, tvm.tirx.PrimFunc) or not function.attrs.get("s_tir", False):
        return False
    if any(name in function.attrs for name in (KERNEL, SCHEDULED)):
        return False
    shapes = [getattr(parameter, "shape", None) for parameter in function.params]
    return all(shape is not None and all(isinstance(n, tvm.tirx.IntImm) for n in shape) for shape in shapes)


def workload(function: Any) -> Any:
    """A module of that one function, equal for functions that compute the same."""
    attributes = {"global_symbol": "main", "tirx.noalias": True, "s_tir": True}
    for name in function.attrs.keys():  # noqa: SIM118 (a TVM object)
        if name not in attributes:
            function = function.without_attr(name)
    for name, value in attributes.items():
        function = function.with_attr(name, value)
    return tvm.IRModule({"main": function})


def key_of(module: Any) -> str:
    """What a workload is on record by."""
    return f"{tvm_ffi.structural_hash(module['main']) & (1 << 64) - 1:016x}"


def apply_database(module: Any, llvm: Any) -> Any:
    """Schedules the functions of a module for which something on record is faster than scheduling without
    search; the rest, and whatever is scheduled already, stay as they are.

    Args:
        module: a tvm.IRModule; it is not edited.
        llvm: the tvm.target.Target it will be compiled for.
    """
    schedules = open_schedules(llvm)
    changed = {}
    for variable, function in module.functions_items():
        if is_open(function) and (scheduled := _scheduled(function, schedules)) is not None:
            changed[variable] = scheduled
    if not changed:
        return module
    return tvm.IRModule({**dict(module.functions_items()), **changed}, attrs=module.attrs)


def _scheduled(function: Any, schedules: Schedules) -> Any:
    """The function scheduled as on record, with the attributes it had; None where nothing helps."""
    source = workload(function)
    best = schedules.known(key_of(source)).best
    if best is None:
        return None
    schedule = Schedule(source)
    try:
        record = TuningRecord.from_json(best[1], Workload(source))
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
    except (ScheduleError, ValueError, TypeError, tvm.error.InternalError):
        return None  # written by hand, or by another version
    made = schedule.mod["main"].without_attr("global_symbol")
    for name, value in function.attrs.items():
        made = made.with_attr(name, value)
    return made.with_attr(SCHEDULED, True)

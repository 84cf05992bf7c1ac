"""Joules that the processor packages drew, where the kernel lets this process read RAPL."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

_ROOT = Path("/sys/class/powercap")


def domains(root: Path = _ROOT) -> list[Path]:
    """One directory per processor package whose counter is readable; empty without RAPL or permission.

    Top-level zones only: their cores and uncore are counted in them already.
    """
    zones = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
    return [zone for zone in zones if _counter(zone) is not None]


def read(zones: list[Path]) -> list[int]:
    """Microjoules of each zone so far. Counters wrap around: see `joules`."""
    return [_counter(zone) or 0 for zone in zones]


def joules(zones: list[Path], before: list[int], after: list[int]) -> float:
    """Energy between two readings, one wrap-around of each counter allowed for."""
    total = 0
    for zone, start, end in zip(zones, before, after, strict=True):
        if end < start:
            end += int((zone / "max_energy_range_uj").read_text())
        total += end - start
    return total / 1e6


class Meter:
    """Joules that this machine drew since it was made, whoever drew them.

    Counters wrap around, some after less than an hour, so a thread reads them as long as there is a meter.

    Args:
        every: seconds between its readings.
    """

    def __init__(self, root: Path = _ROOT, every: float = 60.0) -> None:
        self._zones = domains(root)
        self._last, self._total = read(self._zones), 0.0
        self._lock = threading.Lock()
        if self._zones:
            threading.Thread(target=_watch, args=(weakref.ref(self), every), daemon=True).start()

    def joules(self) -> float | None:
        """So far; None where this machine doesn't tell."""
        if not self._zones:
            return None
        with self._lock:
            now = read(self._zones)
            self._total += joules(self._zones, self._last, now)
            self._last = now
            return self._total


def _watch(of: weakref.ref[Meter], every: float) -> None:
    while True:
        time.sleep(every)
        meter = of()
        if meter is None:
            return
        meter.joules()
        del meter


def _counter(zone: Path) -> int | None:
    try:
        return int((zone / "energy_uj").read_text())
    except (OSError, ValueError):
        return None

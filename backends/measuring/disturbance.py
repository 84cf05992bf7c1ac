"""What keeps a process from its cores: threads that wait for one, and a hypervisor that takes one away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

WAITED, STOLEN = 0.02, 0.05  # of a call's time, and of a turn's: what disturbs it
_SWITCH = 1e-3  # seconds that a thread is away, at least, where the kernel only counts how often it was


class Watch:
    """How long the threads of this process have waited for a core, and what was stolen of some cores.

    Linux tells a thread's time on a run queue (/proc/PID/task/TID/schedstat, nanoseconds; threads that start
    later aren't seen). Elsewhere involuntary context switches are counted (getrusage), a millisecond each,
    and Windows tells neither. Use it in a `with`: it holds a file open for each thread.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root, self._files = root, list[int]()
        self._stack = ExitStack()
        try:
            for path in sorted(root.glob("self/task/*/schedstat")):
                file = os.open(path, os.O_RDONLY)
                self._stack.callback(os.close, file)
                self._files.append(file)
        except OSError:  # a thread has just ended, or too many files are open: the others tell enough
            pass

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def waited(self) -> float:
        """Seconds, summed over threads, since each began."""
        if self._files:
            return sum(self._delay(file) for file in self._files) / 1e9
        if sys.platform == "win32":
            return 0.0
        import resource

        return _SWITCH * resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    @staticmethod
    def _delay(file: int) -> int:
        try:
            return int(os.pread(file, 64, 0).split()[1])
        except (OSError, IndexError, ValueError):  # the thread has ended
            return 0

    def stolen(self, cpus: Iterable[int]) -> float:
        """Seconds since the machine started that a hypervisor gave these CPUs' time to others."""
        names = {f"cpu{cpu}" for cpu in cpus}
        try:
            lines = [line.split() for line in (self._root / "stat").read_text().splitlines()]
            ticks = sum(int(line[8]) for line in lines if line and line[0] in names and len(line) > 8)
        except (OSError, ValueError):
            return 0.0
        return ticks / os.sysconf("SC_CLK_TCK")


def undisturbed(seconds: Sequence[float], waited: Sequence[float], stolen: float) -> tuple[list[float], bool]:
    """The calls of a turn that count, and whether the turn was disturbed.

    Those that waited for less than 2% of their time are quiet. A turn is disturbed where more than half of
    its calls weren't, or a hypervisor took more than 5% of it: then all of them count.

    Args:
        seconds: of each call.
        waited: of each call, seconds that its threads waited for a core.
        stolen: seconds of the whole turn.
    """
    quiet = [taken for taken, lost in zip(seconds, waited, strict=True) if lost <= WAITED * taken]
    if stolen <= STOLEN * sum(seconds) and 2 * len(quiet) >= len(seconds):
        return quiet, False
    return list(seconds), True

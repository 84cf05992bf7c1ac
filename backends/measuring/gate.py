"""The measuring function of a pass manager's Context: two programs, few rounds where the answer is plain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from ...ir.errors import MeasureError
from ...ir.footprint import weight_bytes
from ...ir.program import Program
from ..cache import cache_directory
from ..runtimes.onnxruntime import Scratch
from ..target import Target, detect
from .contestants import too_large
from .decisions import Decisions, Rounds, digest
from .effort import THOROUGH, Effort
from .measure import save_feeds
from .process import Warmed, Worker
from .ratios import Speedup
from .workloads import Workload, fitted, shortest

Turn: TypeAlias = tuple[float, bool]  # seconds of a call, and whether others' work disturbed it

_PROTOCOL = 4  # part of every key: raised when the way of measuring changes
_MOST = 9  # rounds
_SURE = 2  # rounds that are enough where they say the same by far
HELD = 4  # programs whose processes wait for what is asked next
_SAME = 0.02  # ratios within this of 1 are no difference


class Measurer:
    """measure(before, after) -> speed-up of `after` by workload name.

    The last few programs' processes live from one call to the next, as far as memory holds them: a pass's
    `after` is often the next one's `before`. Use the measurer in a `with`, or close it. Measurements are
    remembered across runs under the cache directory.

    ms: of one call of the last `after`, by workload name. decided, doubted: ratios that were asked for, and
        those among them that were measured beside others' work and never without.

    Args:
        workloads: what to time.
        threads: of each contestant.
        target: part of what a measurement is remembered by; None detects.
        effort: how long to time.
        remember: False measures anew and records nothing.
        progress: called with (description, done, total).
        contestant: (kind, path) of what runs a program, as process.Worker takes them; None runs its graph in
            ONNX Runtime.
    """

    def __init__(
        self,
        workloads: Sequence[Workload],
        threads: int = 2,
        target: Target | None = None,
        *,
        effort: Effort = THOROUGH,
        remember: bool = True,
        progress: Callable[[str, int, int], None] = lambda description, done, total: None,
        contestant: Callable[[Program], tuple[str, Path]] | None = None,
    ) -> None:
        if not workloads:
            raise MeasureError("there is nothing to measure on: give at least one workload")
        self.workloads = tuple(workloads)
        self.threads = threads
        self.effort = effort
        self.progress = progress
        self._contestant = contestant
        self.decisions = Decisions(cache_directory() / "measurements") if remember else None
        self._where = {
            "protocol": _PROTOCOL,
            "threads": threads,
            "target": (target or detect()).to_json(),
            "onnxruntime": onnxruntime.__version__,
        }
        if effort != THOROUGH:
            self._where["effort"] = asdict(effort)
        self._digests = {workload.name: digest(workload) for workload in workloads}
        self.ms: dict[str, float] = {}
        self.decided = self.doubted = 0
        self._stack = ExitStack()
        self._feeds: dict[str, str] | None = None
        self._scratch: Scratch | None = None
        self._workers: dict[str, Any] = {}  # by program, in the order that they were timed in
        self._bytes: dict[str, int] = {}
        self._seconds: dict[tuple[str, str], float] = {}  # of a call: (program, workload) -> the last turn's

    @property
    def conditions(self) -> dict[str, Any] | None:
        """What a measurement depends on beside the programs; None where none is remembered."""
        return {**self._where, "workloads": self._digests} if self.decisions else None

    def __call__(
        self,
        before: Program,
        after: Program,
        only: str | None = None,
        processes: int = 1,
        whether: bool = False,
    ) -> dict[str, Speedup]:
        """Ratios by workload name, measured or remembered.

        Args:
            only: the one workload to measure.
            processes: new ones of each program that the rounds are spread over, where it matters how much
                faster one is: the same program can differ by a tenth from one process to another.
            whether: it only matters whether `after` is slower, not how much; then fewer rounds may do.

        Raises:
            MeasureError: a program isn't of the onnx dialect, or fails at a workload.
        """
        for program in (before, after):
            if program.dialect != "onnx":
                raise MeasureError(
                    f"only onnx programs are timed, and this one is {program.dialect}: run to-onnx first"
                )
        self._fit((before, after))
        names = (before.fingerprint(), after.fingerprint())
        ratios: dict[str, Speedup] = {}
        self.ms = {}
        for number, workload in enumerate(self.workloads):
            if only not in (None, workload.name):
                continue
            self.progress(f"timing {workload.name}", number, len(self.workloads))
            key = {**self._where, "programs": names, "workload": self._digests[workload.name]}
            if processes > 1:
                key["processes"] = processes
            if whether:
                key["whether"] = True
            rounds = self.decisions.get(key) if self.decisions else None
            if rounds is None or rounds.doubtful:  # a machine that is still loud decides as it did before
                rounds = self._measure(names, (before, after), workload.name, processes, whether)
                if self.decisions:
                    rounds = self.decisions.put(key, rounds)
            self.decided += 1
            self.doubted += rounds.doubtful
            ratios[workload.name] = rounds.speedup
            self.ms[workload.name] = rounds.ms
        self.progress("timed", len(self.workloads), len(self.workloads))
        return ratios

    @property
    def loud(self) -> str:
        """How many decisions others' work put in doubt, in a sentence; empty where none."""
        if not self.doubted:
            return ""
        return (
            f"The machine was busy with other work: {self.doubted} of {self.decided} ratios that decide what "
            "is kept are in doubt, and what is in doubt is kept as the pipeline has it; run it again when "
            "the machine is quiet"
        )

    def _fit(self, programs: tuple[Program, Program]) -> None:
        """Make every workload one that both programs can be called with."""
        workloads = tuple(fitted(self.workloads, programs))
        if any(new is not old for new, old in zip(workloads, self.workloads, strict=True)):
            self.workloads = workloads
            self._digests = {workload.name: digest(workload) for workload in workloads}
            self._feeds = None

    def close(self) -> None:
        """End the processes and remove the temporary files."""
        self._keep(())
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        self._stack.close()
        self._feeds = None

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measure(
        self,
        names: tuple[str, str],
        pair: tuple[Program, Program],
        workload: str,
        processes: int,
        whether: bool,
    ) -> Rounds:
        if self._feeds is None:
            self._feeds = self._stack.enter_context(save_feeds(self.workloads))
        programs = dict(zip(names, pair, strict=True))
        sizes = {name: weight_bytes(program) for name, program in programs.items()}
        in_turn = too_large(sizes.values())
        self._make_room(sizes)
        feed, short = self._feeds[workload], self._feeds[shortest(self.workloads).name]
        warm = 1 if in_turn else self.effort.warm

        def ask(name: str, runs: int) -> Turn:
            if in_turn:
                self._keep((name,))
            if name not in self._workers:
                self._workers[name] = Warmed(self._start(programs[name]), warm, short)
            answer = self._workers[name].time(feed, runs, 4 * self.effort.turn)
            self._seconds[name, workload] = seconds = float(np.median(answer["seconds"]))
            return seconds, answer["disturbed"]

        found: list[Rounds] = []
        for _ in range(processes):
            if processes > 1:
                self._keep(())
            once = max(self._seconds.get((name, workload), 0.0) for name in names)
            found.append(interleave(ask, *names, self.effort, once, whether))
        if in_turn:
            self._keep(())  # nor beside the next pass
        return Rounds(
            tuple(s for one in found for s in one.before),
            tuple(s for one in found for s in one.after),
            tuple(each for one in found for each in one.disturbed),
        )

    def _start(self, program: Program) -> Worker:
        if self._contestant is not None:
            return Worker("the program", *self._contestant(program), self.threads)
        self._scratch = self._scratch or Scratch()
        return Worker("the program", "onnxruntime", self._scratch.save(program), self.threads)

    def _make_room(self, sizes: dict[str, int]) -> None:
        """End the processes of programs that were timed longest ago: all but a few of them, or all but those
        of these, by name with their bytes, where memory would not hold more."""
        self._bytes |= sizes
        others = [name for name in self._workers if name not in sizes][len(sizes) - HELD :]
        if too_large(self._bytes[name] for name in (*sizes, *others)):
            others = []
        self._keep({*sizes, *others})
        for name in sizes.keys() & self._workers.keys():
            self._workers[name] = self._workers.pop(name)  # the last of them

    def _keep(self, names: Any) -> None:
        """End the processes of every program but these."""
        for name in [name for name in self._workers if name not in names]:
            self._workers.pop(name).close()


def interleave(
    ask: Callable[[str, int], Turn],
    before: str,
    after: str,
    effort: Effort = THOROUGH,
    once: float = 0.0,
    whether: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Rounds of A B, B A, A B, ... until the answer is plain, nine are done or the time is up.

    Plain is every round that nothing disturbed well above 1, every one well below, or every one within 2% of
    it. A disturbed turn is taken again, as often as there are rounds at least and as long as there is time.

    Args:
        ask: (contestant, runs) -> the median seconds of its timed runs, and whether others' work disturbed
            them.
        once: seconds of a call, about; 0 asks for one.
        whether: it only matters whether `after` is slower. Then no round below 1 by 2% is plain as well, and
            two rounds that say the same by far are enough.
    """
    start = clock()
    once = once or ask(before, 1)[0]
    runs = min(max(round(effort.turn / max(once, 1e-6)), effort.least), 50)
    taken: dict[str, list[Turn]] = {before: [], after: []}
    spare = effort.fewest
    for number in range(1, _MOST + 1):
        for name in (before, after) if number % 2 else (after, before):
            turn = ask(name, runs)
            if turn[1] and spare and clock() - start <= effort.seconds:
                turn, spare = ask(name, runs), spare - 1
            taken[name].append(turn)
        found = _rounds(taken[before], taken[after])
        if number >= effort.fewest and (_plain(found, whether) or clock() - start > effort.seconds):
            break
        if whether and number >= _SURE and found.far:
            break
    return found


def _rounds(before: Sequence[Turn], after: Sequence[Turn]) -> Rounds:
    disturbed = tuple(b[1] or a[1] for b, a in zip(before, after, strict=True))
    return Rounds(tuple(b[0] for b in before), tuple(a[0] for a in after), disturbed)


def _plain(rounds: Rounds, whether: bool) -> bool:
    if rounds.doubtful:
        return False
    least, most = rounds.edges
    if least > 1 + 2 * _SAME or most < 1 - 2 * _SAME:
        return True
    return least > 1 - _SAME and (whether or most < 1 + _SAME)

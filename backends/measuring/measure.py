"""Wall clock, side by side: contestants take turns within one run, so that a drift hits all of them alike."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import MeasureError
from ...ir.host.temporary import TemporaryFolder
from .contestants import Contestant, entries_of, size_of, too_large
from .process import Warmed, Worker
from .ratios import Speedup, speedup
from .turns import Taken, Turns
from .workloads import Workload, default_names, shortest, workloads

__all__ = ["Cell", "Comparison", "Workload", "compare", "default_names", "workloads"]

TURNS = 3  # rounds when every round loads anew


@dataclass(frozen=True)
class Cell:
    """One contestant on one workload.

    ms: the median of the rounds' medians; low_ms, high_ms their quartiles. speedup: over the first
    contestant. joules: of one call, where the machine tells. rounds: seconds, the median of each round.
    disturbed: the rounds in which it was kept from its cores.
    p95_ms: what 95 of 100 timed calls stay within, over all rounds; as rough as there are few of them.
    """

    ms: float
    low_ms: float
    high_ms: float
    speedup: Speedup
    joules: float | None = None
    rounds: tuple[float, ...] = ()
    disturbed: tuple[bool, ...] = ()
    p95_ms: float | None = None


@dataclass(frozen=True)
class Comparison:
    """cells: contestant -> workload -> Cell, in the order given. peak_bytes: largest resident size of the
    contestant's process, interpreter and runtime included. rounds: at most. in_turn: one contestant was
    loaded at a time."""

    cells: Mapping[str, Mapping[str, Cell]]
    peak_bytes: Mapping[str, int]
    threads: int
    rounds: int
    in_turn: bool

    def faster(self, workload: str, name: str, than: str) -> Speedup:
        """How many times faster `name` is than another contestant at a workload."""
        before, after = self.cells[than][workload], self.cells[name][workload]
        disturbed = [a or b for a, b in zip(before.disturbed, after.disturbed, strict=True)]
        return speedup(before.rounds, after.rounds, disturbed)

    @property
    def loud(self) -> str:
        """How much of the measuring others' work disturbed, in a sentence; empty where none."""
        turns = [each for row in self.cells.values() for cell in row.values() for each in cell.disturbed]
        if not any(turns):
            return ""
        return (
            f"The machine was busy with other work: {sum(turns)} of {len(turns)} turns were disturbed, as "
            "often as they were repeated; the others count where there are enough, else intervals are wide."
        )

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries, as manifests and `--json` hold them."""
        return {
            "threads": self.threads,
            "rounds": self.rounds,
            "contestants": {
                name: {
                    "peak_bytes": self.peak_bytes[name],
                    "workloads": {work: _cell_json(cell) for work, cell in row.items()},
                }
                for name, row in self.cells.items()
            },
        }


def _cell_json(cell: Cell) -> dict[str, Any]:
    found = {
        "ms": round(cell.ms, 4),
        "ms_quartiles": [round(cell.low_ms, 4), round(cell.high_ms, 4)],
        "speedup": round(cell.speedup.median, 4),
        "quartiles": [round(cell.speedup.low, 4), round(cell.speedup.high, 4)],
        "interval95": [round(edge, 4) for edge in cell.speedup.interval],
        "rounds_ms": [round(1e3 * seconds, 4) for seconds in cell.rounds],
        "disturbed": list(cell.disturbed),
    }
    if cell.p95_ms is not None:
        found["p95_ms"] = round(cell.p95_ms, 4)
    return found if cell.joules is None else {**found, "joules": round(cell.joules, 4)}


def compare(
    contestants: Mapping[str, Contestant],
    workloads: Sequence[Workload],
    threads: int = 2,
    rounds: int = 7,
    runs: int = 8,
    seconds: float = 2.0,
    warm: int = 2,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
    start: Callable[[str, str, Path, int], Any] | None = None,
) -> Comparison:
    """Time every contestant on every workload, in turn (A B, B A, A B, ...), only one working at a time.

    Args:
        contestants: by name; the first is what the others are compared with. A Program of the onnx dialect,
            or a path: an .onnx file, a bundle, or a Hugging Face directory (PyTorch eager).
            "torch-compile:DIR" names the kind where the path can't tell; so do "torch:", "onnxruntime:" and
            "bundle:".
        workloads: a contestant is given the inputs of them that it takes.
        threads: of each contestant, pinned to as many CPUs where the machine has more.
        rounds: turns on each workload, at most; each gives one ratio. They end sooner, after six at least,
            where all ratios are known to 5% and are not 1, or to 2%. As many again, in other processes, where
            a contestant is within 5% of the first and told from it.
        runs: timed calls a turn, after the warm-up; their median counts. Fewer (two at least, where runs
            are) when `seconds` end first.
        warm: calls before them in a contestant's first turn at a workload; later it only settles (`Warmed`).
        progress: called with (description, done, total).
        start: from (name, kind, path, threads), what is asked for times; None is a process here.

    Raises:
        MeasureError: a contestant can't be loaded or fails; names it and gives its last word.
    """
    if not contestants or not workloads:
        raise MeasureError("there is nothing to compare: give at least one contestant and one workload")
    with entries_of(contestants) as entries, save_feeds(workloads) as feeds:
        in_turn = too_large(size_of(path) for _, path in entries.values())
        if in_turn:
            rounds = min(rounds, TURNS)
        begin = lambda name: (start or Worker)(name, *entries[name], threads)
        warmed = partial(Warmed, warm=warm, short=feeds[shortest(workloads).name])
        turns = Turns(list(entries), feeds, rounds, runs, seconds, warmed, progress)
        (turns.one_at_a_time if in_turn else turns.side_by_side)(begin)
        taken, first = turns.taken, next(iter(entries))
        cells = {
            name: {work: _cell(taken[name, work], taken[first, work]) for work in feeds} for name in entries
        }
    return Comparison(cells, turns.peak, threads, rounds, in_turn)


def _cell(own: Taken, base: Taken) -> Cell:
    low, median, high = (1e3 * float(q) for q in np.quantile(own.seconds, [0.25, 0.5, 0.75]))
    used = float(np.median(own.joules)) if own.joules else None
    tail = 1e3 * float(np.quantile(own.calls, 0.95))
    return Cell(median, low, high, own.over(base), used, tuple(own.seconds), tuple(own.disturbed), tail)


@contextlib.contextmanager
def save_feeds(workloads: Sequence[Workload]) -> Iterator[dict[str, str]]:
    """Workload name -> .npz file, which workers read; removed afterwards."""
    with TemporaryFolder() as folder:
        paths = {}
        for number, workload in enumerate(workloads):
            paths[workload.name] = str(Path(folder, f"{number}.npz"))
            _save(paths[workload.name], workload.feed)
        yield paths


def _save(path: str, feed: Mapping[str, np.ndarray]) -> None:
    """What np.savez writes: its own parameters' names ("file") are no names of arrays there."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in feed.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

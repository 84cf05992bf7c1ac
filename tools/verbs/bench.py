"""`optimize bench A B C`: bundles, ONNX files and model directories timed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import is_bundle, read_manifest
from ...backends.measuring.measure import Comparison, compare, workloads
from ...backends.measuring.workloads import fitted
from ...backends.target import detect
from ...backends.tvm.remote.device import Device
from ...backends.tvm.remote.timing import contestants
from ..build.portability import Portability, graphs_of, portability, summary
from ..console import Console
from ..opened import open_model, program_of


@dataclass(frozen=True)
class Bench:
    """The comparison; ratios are against the first model. portability: by model, where it was asked for.
    device: the one that was timed, where it wasn't this machine."""

    comparison: Comparison
    portability: Mapping[str, Portability] = field(default_factory=dict)
    device: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = {name: each.to_json() for name, each in self.portability.items()}
        told = {"portability": found} if found else {}
        return self.comparison.to_json() | told | ({"device": self.device} if self.device else {})


def bench(
    models: Sequence[str],
    shapes: Sequence[str] | None,
    threads: int | None,
    seed: int,
    console: Console,
    isa: bool = False,
) -> Bench:
    """Time every model at every shape; the first says what inputs look like.

    isa: also tell on which instruction sets int8 sums are right.

    Raises:
        MeasureError: a model can't be loaded or run, or doesn't take a shape.
    """
    count = threads or detect().cores
    program = open_model(models[0], count).program
    bundles = [read_manifest(Path(name)) for name in models if is_bundle(name)]
    work = fitted(workloads(program, shapes, seed=seed), map(program_of, bundles))
    found = {}
    if isa:
        feeds = [workload.feed for workload in work]
        found = {name: portability(graphs_of(name), feeds, count) for name in dict.fromkeys(models)}
    timed = compare(_named(models), work, count, progress=console.progress)
    return Bench(timed, found)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Models by what the table calls them: one that is given twice is timed twice, beside itself."""
    found: dict[str, str] = {}
    for model in models:
        count = sum(other == model for other in found.values()) + 1
        found[model if count == 1 else f"{model} ({count})"] = model
    return found


def bench_remotely(
    models: Sequence[str],
    shapes: Sequence[str] | None,
    threads: int | None,
    seed: int,
    console: Console,
    tracker: str,
    key: str,
) -> Bench:
    """Time bundles of the tvm backend on a device that a TVM RPC tracker knows.

    threads: None takes what the first bundle was measured with.

    Raises:
        MeasureError: no tracker, no such device, or a bundle can't be run there.
    """
    manifest = read_manifest(Path(models[0]))
    work = workloads(program_of(manifest), shapes, seed=seed)
    count = threads or manifest.threads or 1
    names = _named(models)
    with Device(tracker, key, count) as device:
        start = contestants(device)
        timed = compare(names, work, count, progress=console.progress, start=start)
    return Bench(timed, device=f"{key} of {tracker}")


def tables(result: Bench) -> list[Any]:
    """A row a model: ms and speed-up over the first at each workload."""
    from rich.table import Table

    cells = result.comparison.cells
    first = next(iter(cells))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ms (times as fast, 95% interval)")
    for workload in cells[first]:
        table.add_column(workload, justify="right", no_wrap=True)
    table.add_column("peak MB", justify="right")
    for name, row in cells.items():
        shown = []
        for cell in row.values():
            low, high = cell.speedup.interval
            ratio = "" if name == first else f" ({cell.speedup.median:.2f}, {low:.2f}–{high:.2f})"
            shown.append(f"{cell.ms:.2f}{ratio}")
        peak = result.comparison.peak_bytes[name]  # 0: another machine's, which doesn't tell
        table.add_row(name, *shown, f"{peak / 1e6:.0f}" if peak else "–")
    note = (
        f"{result.comparison.threads} threads, medians of up to {result.comparison.rounds} interleaved rounds"
    )
    if result.device:
        note = f"on {result.device}: {note}"
    loud = [result.comparison.loud] if result.comparison.loud else []
    if not result.portability:
        return [table, note, *loud]
    told = [f"{name}: {line}" for name, each in result.portability.items() for line in each.sentences()]
    return [table, note, *loud, "", summary(result.portability), *told]

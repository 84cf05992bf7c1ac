"""`optimize bench A B C`: bundles, ONNX files and model directories timed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backends.measure import Comparison, compare, workloads
from ..backends.target import detect
from .console import Console
from .opened import open_model
from .portability import Portability, graphs_of, portability, summary


@dataclass(frozen=True)
class Bench:
    """The comparison; ratios are against the first model. portability: by model, where it was asked for."""

    comparison: Comparison
    portability: Mapping[str, Portability] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found = {name: each.to_json() for name, each in self.portability.items()}
        return self.comparison.to_json() | ({"portability": found} if found else {})


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
    work = workloads(program, shapes, seed=seed)
    names = dict.fromkeys(models)
    found = {}
    if isa:
        feeds = [workload.feed for workload in work]
        found = {name: portability(graphs_of(name), feeds, count) for name in names}
    timed = compare({name: name for name in names}, work, count, seed=seed, progress=console.progress)
    return Bench(timed, found)


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
        table.add_row(name, *shown, f"{result.comparison.peak_bytes[name] / 1e6:.0f}")
    note = f"{result.comparison.threads} threads, medians of {result.comparison.rounds} interleaved rounds"
    if not result.portability:
        return [table, note]
    told = [f"{name}: {line}" for name, each in result.portability.items() for line in each.sentences()]
    return [table, note, "", summary(result.portability), *told]

"""`optimize bench A B C`: bundles, ONNX files and model directories timed side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backends.measure import Comparison, compare, workloads
from ..backends.target import detect
from .console import Console
from .opened import open_model


@dataclass(frozen=True)
class Bench:
    """The comparison; ratios are against the first model."""

    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        return self.comparison.to_json()


def bench(
    models: Sequence[str], shapes: Sequence[str] | None, threads: int | None, seed: int, console: Console
) -> Bench:
    """Time every model at every shape; the first says what inputs look like.

    Raises:
        MeasureError: a model can't be loaded or run, or doesn't take a shape.
    """
    count = threads or detect().cores
    program = open_model(models[0], count).program
    work = workloads(program, shapes, seed=seed)
    names = dict.fromkeys(models)
    return Bench(compare({name: name for name in names}, work, count, seed=seed, progress=console.progress))


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
    return [table, note]

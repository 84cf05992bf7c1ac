"""How far `optimize bench` is to be trusted: a bundle held against itself, quiet and beside a busy process.

    python benchmarks/steady.py BUNDLE [--times 20] [--shapes 1x16,1x128,8x128] [--which quiet,beside]
        [--json FILE]

Each time `optimize bench BUNDLE BUNDLE` runs as a process of its own, quiet and beside one process that keeps
a core busy in turn. Counted: intervals of 95% that leave out 1, and how far medians are from 1. What --json
holds counts too: a run that was stopped goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table


def main(
    bundle: Path,
    times: Annotated[int, typer.Option()] = 20,
    shapes: Annotated[str, typer.Option()] = "1x16,1x128,8x128",
    which: Annotated[str, typer.Option()] = "quiet,beside",
    out: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {how: {} for how in which.split(",")}
    if out and out.exists():
        found = json.loads(out.read_text(encoding="utf-8"))
    for _ in track(range(times), console=Console(stderr=True)):
        for how, rows in found.items():
            for shape, record in once(bundle, shapes, busy=how == "beside").items():
                rows.setdefault(shape, []).append(record)
            if out:
                out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    table = Table(
        "",
        "shape",
        "intervals without 1",
        "medians: mean distance from 1",
        "largest",
        "within 3% (beside: 6%)",
    )
    for how, rows in found.items():
        for shape, ratios in rows.items():
            apart = [abs(each["speedup"] - 1) for each in ratios]
            missed = sum(not low <= 1 <= high for low, high in (each["interval95"] for each in ratios))
            table.add_row(
                how,
                shape,
                f"{missed} of {len(ratios)}",
                f"{100 * np.mean(apart):.2f}%",
                f"{100 * max(apart):.2f}%",
                f"{sum(each <= (0.03 if how == 'quiet' else 0.06) for each in apart)} of {len(apart)}",
            )
    Console().print(table)


def once(bundle: Path, shapes: str, busy: bool) -> dict[str, dict[str, Any]]:
    """By shape: the second's record beside the first, and the rounds of both."""
    command = [str(Path(sys.executable).with_name("optimize")), "bench", str(bundle), str(bundle), "--json"]
    command += ["--shapes", shapes]
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    finally:
        if beside:
            beside.kill()
            beside.wait()
    first, second = (each["workloads"] for each in told["contestants"].values())
    return {shape: cell | {"beside": first[shape]} for shape, cell in second.items()}


if __name__ == "__main__":
    typer.run(main)

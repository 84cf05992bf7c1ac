"""What a loaded bundle keeps in memory, beside its weights, in one process and in two that share them.

    OMP_NUM_THREADS=2 python benchmarks/resident.py BUNDLE... [--shape 1x128] [--calls 20] [--json FILE]

A process loads the bundle and answers calls of one shape that have each token once; then a second one does,
beside it. Resident memory is read from /proc (proportional set size: a page that several processes map
counts by its share), less that of processes that answer the same calls through a bundle of one small layer:
interpreter and runtime are no part of it. The target: 1.15 times the weights, in one process and in both
together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import graphwright as gw
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

MB = 1e6


class Small(torch.nn.Module):
    """As many inputs as an encoder's, and hardly any weight."""

    def __init__(self, inputs: list[str]) -> None:
        super().__init__()
        self.table, self.inputs = torch.nn.Embedding(2, 4), inputs

    def forward(self, **given):
        total = sum(given[name].clamp(0, 1) for name in self.inputs)
        return self.table(total.clamp(0, 1)).mean(1)


def answer(bundle: str, shape: str, calls: int) -> None:
    """Load, call, say so, and wait until somebody closes the input."""
    from graphwright.backends.running.runner import load

    loaded = load(bundle)
    sizes = tuple(map(int, shape.split("x")))
    most = max(spec.high or 1 for spec in loaded.inputs)
    for start in range(0, max(most, calls * sizes[-1]), sizes[-1]):  # so that every row of a table is read
        ids = np.broadcast_to(start + np.arange(sizes[-1]), sizes)
        loaded.run({spec.name: (ids % spec.high if spec.high else np.ones(sizes)).astype(spec.dtype)
                    for spec in loaded.inputs})  # fmt: skip
    print("ready", flush=True)
    sys.stdin.read()


def shares(process: subprocess.Popen) -> dict[str, int]:
    """Bytes of a process, by the names of /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split()[0].rstrip(":"): int(line.split()[1]) * 1024 for line in lines}


def resident(bundle: Path, shape: str, calls: int) -> list[float]:
    """Of one process, and of two together."""
    found, running = [], []
    try:
        for _ in range(2):
            words = [
                sys.executable,
                __file__,
                "--answer",
                str(bundle),
                "--shape",
                shape,
                "--calls",
                str(calls),
            ]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running.append(process)
            if (process.stdout and process.stdout.readline()) != "ready\n":
                raise SystemExit(f"{bundle} did not answer")
            found.append(float(sum(shares(each)["Pss"] for each in running)))
    finally:
        for process in running:
            process.communicate("")
    return found


def small(folder: Path, runtime: str, inputs: list[str]) -> Path:
    """A bundle of one layer for a runtime."""
    ids = {name: torch.ones(2, 9, dtype=torch.int64) for name in inputs}
    gw.optimize(Small(inputs).eval(), folder, inputs=ids, backend=runtime, quick=True, threads=1, quiet=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--shape", default="1x128")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        return answer(args.answer, args.shape, args.calls)
    table = Table("bundle", "runtime", "weights, MB", "one process", "", "two together", "")
    record = {}
    with tempfile.TemporaryDirectory() as scratch:
        for bundle in args.bundles:
            manifest = json.loads((bundle / "manifest.json").read_text())
            inputs = [each["name"] for each in manifest["inputs"]]
            base = resident(
                small(Path(scratch, bundle.name), manifest["backend"], inputs), args.shape, args.calls
            )
            weights = manifest["weight_bytes"][0]
            taken = np.subtract(resident(bundle, args.shape, args.calls), base)
            one, both = taken / weights
            table.add_row(
                bundle.name,
                manifest["backend"],
                f"{weights / MB:.1f}",
                f"{taken[0] / MB:.1f}",
                f"{one:.2f}x",
                f"{taken[1] / MB:.1f}",
                f"{both:.2f}x",
            )
            record[str(bundle)] = {"weights": weights, "taken": list(taken), "base": base}
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

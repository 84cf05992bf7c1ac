"""What capturing and lowering take: all-MiniLM-L6-v2 as it is, and after a rewrite.

    OMP_NUM_THREADS=2 python benchmarks/lowering.py [--rounds 5]

Medians of seconds, with the least and the most. To compare two commits, run it in a checkout of each in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import graphwright as gw
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table


def timed(rounds: int, step: Callable[[], Any]) -> str:
    """Of some rounds, after one that loads what a first call loads."""
    step()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return f"{statistics.median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = model_directory()
    program = gw.trace(model)
    lower, narrow = gw.Pipeline.parse("to-onnx"), gw.Pipeline.parse("prune-layers{keep=5}")
    shorter = narrow.run(program).program
    table = Table("step", "seconds")
    table.add_row("capture", timed(rounds, lambda: gw.trace(model)))
    table.add_row("to-onnx", timed(rounds, lambda: lower.run(program, verify=False)))
    table.add_row("to-onnx, a layer less", timed(rounds, lambda: lower.run(shorter, verify=False)))
    Console().print(table)


if __name__ == "__main__":
    main()

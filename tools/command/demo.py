"""`optimize demo`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import Console
from .shared import Force, Seed, Threads, shown
from .verb import verb


@verb
def demo(
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the bundle")] = "minilm-balanced",
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quick: Annotated[bool, typer.Option("--quick", help="a first look: fewer rounds, no PyTorch")] = False,
    *,
    console: Console,
) -> int:
    """Make a real sentence encoder (all-MiniLM-L6-v2) faster."""
    from ..verbs.demo import run_demo

    return shown(run_demo(out, threads, seed, force, quick, console), console)

"""`optimize targets`: the hardware that --target can name, and what this machine is."""

from __future__ import annotations

from typing import Any

from ...backends.target import MIB, NAMES, Target, named


def listed() -> list[Target]:
    """This machine first, then every target that can be named."""
    return [named(name) for name in ("host", *NAMES)]


def table(targets: list[Target]) -> Any:
    """A row a target."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("--target", "processor", "instruction sets", "cores", "L2, MB"):
        shown.add_column(name, overflow="fold")
    for target in targets:
        what = target.model or f"any {target.arch} with these"
        sets = " ".join(sorted(target.isa)) or "the architecture's own"
        shown.add_row(target.name, what, sets, str(target.cores), f"{target.l2 / MIB:.3g}")
    return shown

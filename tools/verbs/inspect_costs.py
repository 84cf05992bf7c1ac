"""`optimize inspect MODEL`: what each block weighs, computes and takes, before anything is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...backends.measuring.workloads import default_names, names_in, workloads
from ...backends.target import detect
from ...ir.errors import MeasureError
from ...ir.program import Program
from ..anatomy import Part, parts


@dataclass(frozen=True)
class Costs:
    """Of one call. workload: its name. threads: that it was timed with, None where it was not. parts: blocks
    in order, then the head and the rest. reason: why there are none; empty otherwise."""

    workload: str
    threads: int | None
    parts: list[Part]
    reason: str = ""

    def by_kind(self) -> list[tuple[int, Part]]:
        """How many there are of each kind, and their sum; then the whole."""
        kinds: dict[str, list[Part]] = {}
        for part in self.parts:
            kinds.setdefault(part.kind, []).append(part)
        return [(len(each), _sum(kind, each)) for kind, each in kinds.items()] + [
            (len(self.parts), _sum("all", self.parts))
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "threads": self.threads,
            "parts": [asdict(part) for part in self.parts],
            "kinds": [{"count": count, **asdict(part)} for count, part in self.by_kind()],
            "reason": self.reason,
        }


def _sum(kind: str, parts: Sequence[Part]) -> Part:
    times = [part.ms for part in parts if part.ms is not None]
    return Part(
        kind,
        "",
        sum(part.unique for part in parts),
        sum(part.total for part in parts),
        sum(part.bytes for part in parts),
        sum(part.multiply_adds for part in parts),
        sum(times) if times else None,
    )


def costs(program: Program, shapes: str | None, threads: int | None, timed: bool) -> Costs:
    """What the parts of a program take in one call.

    Args:
        shapes: the name of the call; None is the first that suits the program's inputs.
        threads: to time with; None is all cores.

    Raises:
        MeasureError: the name says no shape, or more than one, or one that the program doesn't take.
    """
    names = default_names(program)[:1] if shapes is None else names_in(shapes)
    if len(names) != 1:
        raise MeasureError(
            f"a model is inspected in one call, and {shapes} are {len(names)}: name one of them"
        )
    call = workloads(program, names)[0]
    used = (threads or detect().cores) if timed else None
    try:
        return Costs(call.name, used, parts(program, call.feed, used))
    except Exception as error:  # of a model that doesn't run there, or can't be lowered: the rest is told
        return Costs(call.name, None, [], f"{type(error).__name__}: {error}".splitlines()[0])


def tables(found: Costs) -> list[Any]:
    """What to print: a row a block, without the norms, and a row a kind."""
    if found.reason:
        return [f"what the parts cost in a call of {found.workload} is not known: {found.reason}"]
    whole = found.by_kind()[-1][1]
    timed = f", {found.threads} thread{'s' * (found.threads > 1)}" if found.threads else ""
    numbers = Counter[str]()
    rows = []
    for part in found.parts:
        numbers[part.kind] += 1
        if part.kind != "norm":  # a row each would hide the others
            rows.append((_named(part.kind, numbers[part.kind]), part))
    return [
        f"in a call of {found.workload}{timed}:",
        _table("block", rows, whole),
        "",
        _table("kind", [(_named(part.kind, f"x{count}"), part) for count, part in found.by_kind()], whole),
    ]


def _named(kind: str, number: int | str) -> str:
    return kind if kind in ("head", "other", "all") else f"{kind.replace('_', '-')} {number}"


def _table(title: str, rows: Sequence[tuple[str, Part]], whole: Part) -> Any:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column(title)
    for name in ("M params", "in all uses", "MB", "M mult-adds", "ms", "share"):
        shown.add_column(name, justify="right")
    for name, part in rows:
        shown.add_row(
            name,
            f"{part.unique / 1e6:,.3f}",
            f"{part.total / 1e6:,.3f}",
            f"{part.bytes / 1e6:,.2f}",
            f"{part.multiply_adds / 1e6:,.1f}",
            "–" if part.ms is None else f"{part.ms:.3f}",
            "–" if part.ms is None or not whole.ms else f"{part.ms / whole.ms:.1%}",
        )
    return shown

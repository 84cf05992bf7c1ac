"""The latency table: what each block costs with so many units, measured once on the target and kept.

Blocks of one kind are cut together in the real program, which is lowered and timed beside the uncut one, in
turn: small differences add up to what a clock can tell, and caches are filled as they will be. As in ZipLM
(Kurtic et al., 2023, arXiv:2302.04089, section 3.2) times of blocks are taken to add up.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import numpy as np
from scipy.optimize import isotonic_regression

from ....ir.program import Program
from ....ir.text import text
from ...manager.contract import Context
from ..surgery.cut import remove
from ..surgery.units import Units

WIDE, WIDTHS = 512, 32  # from so many units on, numbers are multiples of a vector register's worth or two
_FORMAT = 1  # part of every key: raised when the way of measuring changes


@dataclass(frozen=True)
class Table:
    """times: for each block, by how many units it keeps, what it takes less than with all of them, as a share
    of the whole program's time. measured: whether any of it was measured now."""

    times: tuple[Mapping[int, float], ...]
    measured: bool


Time = Callable[[Program], float]


def table(
    program: Program, found: Sequence[Units], choices: int, timing: Time, context: Context, workload: str
) -> Table:
    """The table of a program's blocks, from the context's cache where it is there.

    Args:
        program: fx, in which the units were found.
        choices: how many numbers of units between none and all are timed for each kind of block.
    """
    path = _path(program, choices, context, workload)
    groups: dict[Hashable, list[Units]] = {}
    for units, kind in zip(found, kinds(program, found), strict=True):
        groups.setdefault(kind, []).append(units)
    known = _read(path, list(groups.values()), choices)
    measured = known is None
    if known is None:
        known = _measured(program, list(groups.values()), choices, timing, context)
        _write(path, known)
    place = {units: number for number, group in enumerate(groups.values()) for units in group}
    return Table(tuple(known[place[units]] for units in found), measured)


Times = list[dict[int, float]]


def _measured(
    program: Program, groups: Sequence[Sequence[Units]], choices: int, timing: Time, context: Context
) -> Times:
    """For each kind of block, the saving of one at each number of units."""
    result: Times = []
    total, done = sum(len(grid(group[0].size, choices)) - 1 for group in groups), 0
    for group in groups:
        counts = grid(group[0].size, choices)
        saved = []
        for count in counts[:-1]:
            context.progress(f"timing {count} of {group[0].size} {group[0].kind}", done, total)
            # What makes masks and positions must stay: without any attention it would go as well.
            cut = group[1:] if count == 0 and len(group) > 1 else group
            candidate = program.clone()
            remove(candidate, {units: range(units.size - count) for units in cut})
            saved.append((1 - 1 / timing(candidate)) / len(cut))
            done += 1
        # More units never take less time; where they seem to, the clock was wrong.
        even = isotonic_regression([*saved, 0.0], increasing=False).x
        result.append({count: float(max(0.0, one)) for count, one in zip(counts, even, strict=True)})
        result[-1][counts[-1]] = 0.0
    return result


def _path(program: Program, choices: int, context: Context, workload: str) -> Path | None:
    """Where the table is kept: named by the hash of everything that it depends on."""
    if context.cache is None or context.conditions is None:
        return None
    key = {
        "format": _FORMAT,
        "program": re.sub(r" #[0-9a-f]+", "", text(program)),  # whatever its weights
        "choices": choices,
        "workload": workload,
        "conditions": context.conditions,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return context.cache / "latency" / f"{name}.json"


def _read(path: Path | None, groups: Sequence[Sequence[Units]], choices: int) -> Times | None:
    """A table that is missing, damaged or of other counts is measured anew."""
    if path is None:
        return None
    try:
        stored = [
            {int(count): float(time) for count, time in row.items()} for row in json.loads(path.read_bytes())
        ]
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    due = [grid(group[0].size, choices) for group in groups]
    return stored if [sorted(row) for row in stored] == due else None


def _write(path: Path | None, times: Times) -> None:
    """Whole or not at all."""
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{token_hex(8)}")
        partial.write_text(json.dumps(times))
        partial.replace(path)


def grid(size: int, choices: int) -> list[int]:
    """Ascending: 0, `choices` numbers between, and `size`; all of them where there are fewer."""
    step = WIDTHS if size >= WIDE else 1
    wanted = np.rint(np.linspace(0, size, choices + 2) / step).astype(int) * step
    return sorted({0, size, *(int(count) for count in wanted[:-1] if count < size)})


def kinds(program: Program, found: Sequence[Units]) -> list[Hashable]:
    """What is equal for blocks that take equally long with equally many units: of which kind they are, and
    the shapes of what they read and of their projections' weights, apart from the batch's."""
    shapes = {node.name: getattr(node.meta.get("val"), "shape", ()) for node in program.graph.graph.nodes}
    return [
        (
            units.kind,
            units.size,
            tuple(
                (str(tuple(shapes[output.operand])), tuple(shapes[output.weight])) for output in units.outputs
            ),
        )
        for units in found
    ]

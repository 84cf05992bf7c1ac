"""Programs cut, refitted and timed, until one is as fast as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ....ir.program import Program
from ...common.to_budget import Kept
from ...manager.contract import Context, Feed
from ..refit.refit import refit
from ..surgery.cut import remove
from ..surgery.separate import rejoin
from ..surgery.units import Units
from .search import Search

BUILDS = 5  # at most
PROCESSES = 3  # of each program, to time what was built: one alone can be a tenth off


@dataclass(frozen=True)
class Built:
    """going: the units that went. speedup: measured on this program. errors, notes: as `refit` gives them."""

    program: Program
    going: Mapping[Units, Sequence[int]]
    speedup: float
    errors: Mapping[str, tuple[float, float]]
    notes: Sequence[str]


def built(
    search: Search,
    work: Program,
    original: Program,
    feeds: Sequence[Feed],
    context: Context,
    *,
    speedup: float,
    refitted: Literal["weights", "masks"] | None,
    damping: float,
) -> Built:
    """The first that is as fast as asked, or else the fastest.

    The structure was chosen because it measured fast, so a second measurement, of the weights as they will
    be, is what counts; where it falls short, the search hears of it and goes on.

    Args:
        work: the program in which the search's units were found.
        original: what the refitted weights are to come near to.
        speedup: that is asked for. refitted: which weights are, None for none. damping: of the least squares.
    """
    made: dict[Kept, Built] = {}
    for _ in range(BUILDS):
        kept = search.best(speedup)
        if kept in made:  # nothing is faster
            break
        program, going = work.clone(), search.going(kept)
        remove(program, going)
        rejoin(program)
        errors: dict[str, tuple[float, float]] = {}
        notes: list[str] = []
        if refitted is not None and going:
            errors, notes = refit(program, original, feeds, refitted, damping, context.progress)
        search.tried[kept] = search.timing(program, PROCESSES)
        made[kept] = Built(program, going, search.tried[kept], errors, notes)
        if search.tried[kept] >= speedup:
            break
    return max(made.values(), key=lambda one: one.speedup)

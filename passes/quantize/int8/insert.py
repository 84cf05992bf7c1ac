"""Int8 inserted: what the modes have in common. They differ in where an activation's scale comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.program import Program
from ...manager.contract import Context, Feed, Result
from .alike import remember, remembered
from .hidden_rows import nan_sources
from .placement import unfused
from .rewrite import Rung, Static, write
from .sensitivity import Loss, Placement, choose
from .sites import Site, find, quantized
from .weights import FULL, Range, limit_for

WITHOUT_ROWS = "inside Attention rows cannot be scaled apart: quantize-static can take it"
UNSEEN = (
    "nothing is quantized: no output has a finite row on any input tried, so nothing tells what int8 costs; "
    "give it real inputs (--data FILE, Context(calibration=feeds))"
)


@dataclass(frozen=True)
class Calibrated:
    """static: what "static" needs, from all the data. trial: from some of them. feeds: what shows how good
    such ranges are, with `trial` in place: none of it went into `trial`, unless data are few."""

    static: Static
    trial: Static
    feeds: Sequence[Feed]


@dataclass(frozen=True)
class Mode:
    """text: the pass with its options. needs, opset: the operator that activations are quantized with, and
    the first opset that has it. ladder: the mode's rungs. calibrate: finds what "static" needs at these
    sites; None without that rung."""

    text: str
    needs: str
    opset: int
    ladder: tuple[Rung, ...]
    calibrate: Callable[[Program, Sequence[Site]], Calibrated] | None = None


def insert(program: Program, context: Context, mode: Mode, *, min_cosine: float, weights: Range) -> Result:
    """Put a program's linear layers in int8, in place, as far as its outputs allow.

    Args:
        min_cosine: mean cosine to keep between the outputs' rows in float and in int8; 0 measures nothing.
    """
    if (operator := quantized(program.graph)) is not None:
        return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
    opset = program.graph.graph.opset_imports.get("", mode.opset)
    if opset < mode.opset:
        note = f"opset {opset} has no {mode.needs}: convert the model to {mode.opset} or later"
        return Result(program, False, notes=(note,))
    limit, why = limit_for(context.target, weights)
    sites, misses = find(program, limit)
    if not sites:
        return Result(program, False, notes=("no linear layer to quantize", *misses))
    sources = nan_sources(program, context)
    stuck: dict[int, str] = {}
    if (before := remembered(context, mode.text, sites)) is not None:
        plan, static = Placement(before[0]), before[1]
    else:
        measured = _measured(program, sites, mode, limit, sources, min_cosine, context)
        if measured is None:
            return Result(program, False, notes=(UNSEEN, *misses))
        plan, static, stuck = measured
    misses += [f"{sites[number].name}: stays in float, {reason}" for number, reason in stuck.items()]
    rungs: list[Rung] = [
        rung if rung != "float" and context.allow(f"quantize {site.name}") else "float"
        for site, rung in zip(sites, plan.rungs, strict=True)
    ]
    changed = any(rung != "float" for rung in rungs)
    guarded = write(program, sites, rungs, limit, sources, static) if changed else 0
    notes = (why, *plan.costly([site.name for site in sites], "int8"), *misses)
    unread = len(misses) - len(stuck)
    return Result(program, changed, _statistics(sites, rungs, limit, plan, unread, guarded), notes)


def _measured(
    program: Program,
    sites: Sequence[Site],
    mode: Mode,
    limit: int,
    sources: frozenset[str],
    min_cosine: float,
    context: Context,
) -> tuple[Placement, Static | None, dict[int, str]] | None:
    """A rung for every site, the ranges, and the sites that can't leave float, with the reason; None where
    nothing tells what int8 costs."""
    found = mode.calibrate(program, sites) if mode.calibrate is not None else None
    static = found.static if found else None
    stuck = unfused(program, sites, limit, static) if static is not None else {}
    if mode.ladder[0] == "token":
        stuck |= {n: WITHOUT_ROWS for n, site in enumerate(sites) if not site.per_token}
    free = [number for number in range(len(sites)) if number not in stuck]

    def everywhere(chosen: Sequence[Rung]) -> list[Rung]:
        rungs: list[Rung] = ["float"] * len(sites)
        for number, rung in zip(free, chosen, strict=True):
            rungs[number] = rung
        return rungs

    plan = Placement((mode.ladder[0],) * len(free))
    if min_cosine > 0 and free:
        measured = (
            Loss(program, limit, sources, context, found.trial, found.feeds)
            if found
            else Loss(program, limit, sources, context)
        )
        if not measured.possible:
            return None
        loss = _told(measured, context, len(free) + 1)
        plan = choose(
            [sites[n].per_token for n in free], lambda r: loss(everywhere(r)), 1 - min_cosine, mode.ladder
        )
    alone = dict(zip(free, plan.alone, strict=False))
    whole = Placement(
        tuple(everywhere(plan.rungs)),
        plan.loss,
        tuple(alone.get(n, 0.0) for n in range(len(sites))) if alone else (),
    )
    remember(context, mode.text, sites, whole.rungs, static)
    return whole, static, stuck


def check_cosine(value: float) -> None:
    """Refuse what no cosine to keep can be.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"min_cosine is {value:g}, and a cosine to keep is between 0 and 1")


def _told(
    loss: Callable[[Sequence[Rung]], float], context: Context, total: int
) -> Callable[[Sequence[Rung]], float]:
    """The loss, with progress told at each call."""
    tried = 0

    def told(rungs: Sequence[Rung]) -> float:
        nonlocal tried
        tried += 1
        context.progress("measuring what int8 costs", min(tried, total), total)
        return loss(rungs)

    return told


def _statistics(
    sites: Sequence[Site], rungs: Sequence[Rung], limit: int, plan: Placement, missed: int, guarded: int
) -> dict[str, int | float | str]:
    counts: Counter[Rung] = Counter()
    for site, rung in zip(sites, rungs, strict=True):
        counts[rung] += len(site.products)
    statistics: dict[str, int | float | str] = {
        "products in int8": counts["static"] + counts["tensor"] + counts["token"],
        "with a scale per token": counts["token"],
        "left in float": counts["float"] + missed,
        "weight bits": 8 if limit == FULL else 7,
    }
    if guarded:
        statistics["guarded against NaN rows"] = guarded
    if plan.loss is not None:
        statistics["mean cosine"] = round(1 - plan.loss, 5)
    return statistics

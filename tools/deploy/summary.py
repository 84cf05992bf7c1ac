"""The builds as a table: for the terminal with rich, for a pull request in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .plan import Case
from .results import Result, Results

_HEAD = ("build", "state", "times as fast", "ms", "MB", "points lost", "change")


def tables(results: Results) -> list[Any]:
    """What the terminal shows when the work is done."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(_HEAD):
        table.add_column(name, justify="right" if 2 <= number <= 5 else "left", overflow="fold")
    for each in results.results:
        table.add_row(*_row(each))
    return [table, *closing(results)]


def planned(cases: Sequence[Case]) -> Any:
    """A row a build, of what is going to be done."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("build", "model", "target", "backend", "passes", "shapes", "budgets"):
        table.add_column(name, overflow="fold")
    for each in cases:
        config = each.config
        where = ", ".join(each.levels) or config.target or "host"
        where = f"{each.remote.key} of {each.remote.tracker}" if each.remote else where
        passes = config.pipeline if config.pipeline is not None else config.preset or "balanced"
        shapes = ", ".join(config.shapes or ("the usual",))
        require = ", ".join(budget.text for budget in each.require)
        table.add_row(each.name, config.model, where, config.backend, passes, shapes, require)
    return table


def closing(results: Results) -> list[str]:
    """How many builds came to what, in a sentence."""
    failed = sum(bool(results.faults(each)) for each in results.results)
    states = [each.state for each in results.results]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return [f"{len(states)} builds: {told}." + (f" {failed} not as they should be." if failed else "")]


def markdown(results: Results) -> str:
    """The table, what failed, and what is beyond its interval."""
    lines = ["## Builds", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
    lines += [_line(_row(each)) for each in results.results]
    faults = [f"- {each.name}: {fault}" for each in results.results for fault in results.faults(each)]
    lines += ["", *closing(results), *(["", *faults] if faults else [])]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> list[str]:
    facts = result.facts
    if facts is None:
        return [result.name, result.state, "", "", "", "", ""]
    ratios = [call.speedup for call in facts.calls.values() if call.speedup is not None]
    lost = "" if facts.drop is None else f"{facts.drop:.2f}"
    times = _span(ratios, ".2f")
    ms = _span([call.ms for call in facts.calls.values()], ".3g")
    return [result.name, result.state, times, ms, f"{facts.size / 1e6:.1f}", lost, _change(result)]


def _span(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _change(result: Result) -> str:
    if result.changes is None:
        return "" if result.state != "built" else "new"
    return "; ".join(f"{each.what}: {each.told}" for each in result.changes) or "within noise"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

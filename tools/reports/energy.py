"""Energy that was measured, and what it is in CO2 on a grid that a person names; nothing is estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..build.steps import BUNDLE
from .plots.timings import timings
from .tables import joules

KWH = 3.6e6  # joules
NONE = (
    "No energy is told: this machine lets no process read its counters (RAPL, under /sys/class/powercap), "
    "and nothing was estimated in their place."
)


def sentences(record: Mapping[str, Any], grid: float | None = None) -> list[str]:
    """What passes and calls drew, and after how many calls the one is paid for by the other.

    Args:
        grid: grams of CO2 a kilowatt-hour; None says nothing of CO2.
    """
    drawn = [(step, step["joules"]) for step in record.get("steps") or () if step.get("joules") is not None]
    found = []
    spent = sum(value for _, value in drawn)
    if drawn:
        trained = sum(value for step, value in drawn if step.get("curves"))
        of_it = f", {joules(trained)} of it where something was trained" if trained else ""
        found.append(
            f"The passes drew {joules(spent)}{of_it}{_co2(spent, grid)}: all that the processors drew "
            "meanwhile, checks and measuring included."
        )
    calls = [each for each in timings(record) if each.joules is not None]
    base = {each.workload: each.joules for each in calls if each.name == each.than}
    for each in calls:
        before = base.get(each.workload)
        if each.name == BUNDLE and before and each.joules is not None:
            many = 1e6 * each.joules
            told = f"A million calls of {each.workload} draw {joules(many)}{_co2(many, grid)}"
            saved = before - each.joules
            told += f"; {each.than} draws {joules(1e6 * before)}"
            paid = (
                f", so the passes are paid for after {spent / saved:,.0f} calls"
                if spent and saved > 0
                else ""
            )
            found.append(f"{told}{paid}.")
    return found


def silent(record: Mapping[str, Any]) -> bool:
    """Whether times were measured and energy was not."""
    found = timings(record)
    return bool(found) and all(each.joules is None for each in found)


def _co2(drawn: float, grid: float | None) -> str:
    return "" if grid is None else f" ({drawn / KWH * grid:.3g} g of CO2 at {grid:g} g a kWh)"

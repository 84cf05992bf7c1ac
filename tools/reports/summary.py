"""What got faster, by how much, and what it cost: a bundle in a few tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..build.steps import BUNDLE
from .plots.timings import Timing, timings
from .tables import joules

CLEAR = 0.005  # points below which nothing is said to be lost


@dataclass(frozen=True)
class Tile:
    """what: is told. value, unit: the number. lines: where it comes from. mood: colours the number."""

    what: str
    value: str
    unit: str = ""
    lines: Sequence[str] = field(default_factory=tuple)
    mood: Literal["good", "bad", ""] = ""


def tiles(record: Mapping[str, Any]) -> list[Tile]:
    """Time, size, quality and energy, as far as each was measured."""
    found = [_speed(timings(record)), _size(record), _quality(record), _energy(record)]
    return [tile for tile in found if tile is not None]


def _speed(found: Sequence[Timing]) -> Tile | None:
    ours = [each for each in found if each.name == BUNDLE and each.times is not None and each.interval]
    if not ours:
        return None
    ratios = sorted(each.times for each in ours if each.times is not None)
    value = f"{ratios[0]:.2f}" if len(ratios) == 1 else f"{ratios[0]:.2f} – {ratios[-1]:.2f}"
    base = {each.workload: each.ms for each in found if each.name == each.than}
    lines = [
        f"{each.workload}: {each.times:.2f} ({each.interval[0]:.2f} – {each.interval[1]:.2f}), "  # type: ignore[index]
        f"{each.ms:.3g} ms from {base[each.workload]:.3g}"
        for each in ours[:4]
    ]
    lines += [f"and {len(ours) - 4} more workloads below"] if len(ours) > 4 else []
    mood: Literal["good", "bad", ""] = ""
    if all(each.interval and each.interval[0] > 1 for each in ours):
        mood = "good"
    elif any(each.interval and each.interval[1] < 1 for each in ours):
        mood = "bad"
    return Tile("Speed", value, f"times as fast as {ours[0].than}", lines, mood)


def _size(record: Mapping[str, Any]) -> Tile | None:
    if not record.get("weight_bytes"):
        return None
    held, original = (size / 1e6 for size in record["weight_bytes"])
    share = f"{1 - held / original:.0%} less than" if held < 0.995 * original else "about as much as"
    share = f"{held / original - 1:.0%} more than" if held > 1.005 * original else share
    shown = lambda size: f"{size:.1f}" if size >= 10 else f"{size:.3g}"
    return Tile("Weights", shown(held), "MB", [f"{share} the original's {shown(original)} MB"])


def _quality(record: Mapping[str, Any]) -> Tile | None:
    quality = record.get("quality")
    if not quality:
        return None
    drop, score, reference = quality["drop"], quality["score"], quality["reference"]
    if None in (drop, score["value"], reference["value"]):
        return None
    lines = [f"{score['metric']} {score['value']:.2f}; the original's is {reference['value']:.2f}"]
    lines += [f"on {quality['rows']} rows of {quality['source']}"]
    goal = (record.get("config") or {}).get("max-drop")
    if record.get("met") is not None and goal is not None:
        lines.append(f"goal: at most {goal:g} lost: {'met' if record['met'] else 'NOT met'}")
    value = "0.00" if abs(drop) < CLEAR else f"{abs(drop):.2f}"
    unit = "points gained" if drop <= -CLEAR else "points lost"
    return Tile("Quality", value, unit, lines, "bad" if record.get("met") is False else "")


def _energy(record: Mapping[str, Any]) -> Tile | None:
    found = timings(record)
    ours = [each for each in found if each.name == BUNDLE and each.joules is not None]
    if not ours:
        return None
    base = {each.workload: each.joules for each in found if each.name == each.than}
    first = ours[0]
    lines = [
        f"{each.workload}: {joules(each.joules)} from {joules(base[each.workload])}" for each in ours[:4]
    ]
    return Tile("Energy", joules(first.joules), f"a call of {first.workload}", lines)

"""Time by workload, and how many times as fast that is, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...build.steps import BUNDLE, PLAIN, PYTORCH
from .base import (
    DOT,
    LOGARITHMIC,
    OTHER,
    OURS,
    SPAN,
    USUAL,
    Plot,
    axis,
    coloured,
    layer,
    rows_of,
    spec,
    told,
)
from .timings import Timing, timings

STEP = 44  # pixels of a workload


def times(record: Mapping[str, Any]) -> Plot | None:
    """Milliseconds of a call, on a logarithmic axis: calls differ by orders of magnitude."""
    found = timings(record)
    if not found:
        return None
    y = {"field": "workload", "sort": _workloads(found), "title": None, "axis": {"labelLimit": 150}}
    by = {"y": {**y, "type": "nominal"}, "yOffset": {"field": "name", "sort": _names(found)}}
    colour = coloured("name", colours(found))
    shown = told(
        ("workload", "calls of", ""), ("name", "what ran", ""), ("ms", "ms, median", ".3f"),
        ("low", "lower quartile", ".3f"), ("high", "upper quartile", ".3f"),
    )  # fmt: skip
    x = axis("ms", "ms of a call, logarithmic", scale=LOGARITHMIC)
    low = {**x, "field": "low"}
    layers = [layer(SPAN, {"x": low, "x2": {"field": "high"}}), layer(DOT, {"x": x, "tooltip": shown})]
    rows = [asdict(each) for each in found]
    step = {"step": STEP, "for": "position"}
    made = spec(rows, step, layer=layers, encoding={**by, "color": colour})
    return Plot(
        "Time of a call",
        "Milliseconds of a call by workload: the median of the rounds' medians, with their quartiles.",
        made,
    )


def gains(record: Mapping[str, Any]) -> Plot | None:
    """How many times as fast the bundle is, with the 95% interval of the median."""
    found = timings(record)
    shown = [each for each in found if each.times is not None]
    if not shown:
        return None
    than = shown[0].than
    rows = [
        {**asdict(each), "from": each.interval[0], "to": each.interval[1]}
        for each in shown
        if each.interval is not None
    ]
    title = f"times as fast as {than}"
    y = rows_of("workload", _workloads(found))
    scale = {"zero": True, "nice": True}
    pointer = told(
        ("workload", "calls of", ""), ("name", "what ran", ""), ("times", "times as fast", ".2f"),
        ("from", "95% from", ".2f"), ("to", "95% to", ".2f"),
    )  # fmt: skip
    offset = {"field": "name", "sort": _names(found)}
    by = {"y": y, "yOffset": offset, "color": coloured("name", colours(shown))}
    start, value = (axis(name, title, scale=scale) for name in ("from", "times"))
    same = layer(
        {"type": "rule", "strokeDash": [4, 4]}, {"x": axis("at", title)}, data={"values": [{"at": 1}]}
    )
    layers = [
        same,
        layer(SPAN, {**by, "x": start, "x2": {"field": "to"}}),
        layer(DOT, {**by, "x": value, "tooltip": pointer}),
    ]
    made = spec(rows, {"step": STEP, "for": "position"}, layer=layers)
    return Plot(
        f"Times as fast as {than}",
        f"How many times as fast as {than} a call is, with the 95% interval of the median over rounds.",
        made,
    )


def colours(found: Sequence[Timing]) -> dict[str, str]:
    """What runs -> the name of its colour: the bundle stands out, what you would otherwise run does not."""
    known = {PYTORCH: USUAL, PLAIN: "plain", BUNDLE: OURS}
    return {name: known.get(name, OTHER) for name in _names(found)}


def _names(found: Sequence[Timing]) -> list[str]:
    return list(dict.fromkeys(each.name for each in found))


def _workloads(found: Sequence[Timing]) -> list[str]:
    return list(dict.fromkeys(each.workload for each in found))

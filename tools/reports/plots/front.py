"""What a search found: its Pareto front among all that was tried, and how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .base import DOT, OURS, Plot, axis, coloured, layer, spec, told

MEMBER, WITHIN, BEYOND, EXPORT = "front", "keeps the goal", "breaks a limit", "un-rewritten export"
COLOURS = {MEMBER: OURS, WITHIN: "plain", BEYOND: "usual", EXPORT: "other"}
LONG = 200  # characters of a pipeline that the pointer shows


def pareto(found: Mapping[str, Any]) -> Plot | None:
    """The front in its first two objectives; in the first and another value where there is but one."""
    keys = axes(found)
    if len(keys) < 2:
        return None
    return _scatter(found, keys[0], keys[1], "The Pareto front", joined=len(found["goal"]["minimise"]) == 2)


def quality(found: Mapping[str, Any]) -> Plot | None:
    """Points lost against size, where the front isn't drawn in those."""
    if {"size", "drop"} == set(axes(found)[:2]):
        return None
    return _scatter(found, "size", "drop", "Quality against size")


def progress(found: Mapping[str, Any]) -> Plot | None:
    """The best of the first objective so far, trial by trial."""
    key = axes(found)[0]
    rows: list[dict[str, Any]] = []
    best: float | None = None
    for trial in found["trials"]:
        if trial["state"] != "complete" or key not in trial["values"] or not within(found, trial["values"]):
            continue
        value = trial["values"][key]
        better = best is None or (value > best if rises(key) else value < best)
        best = value if best is None or better else best
        rows.append({"number": trial["number"], "best": best, "value": value})
    if len(rows) < 2:
        return None
    x = axis("number", "trial")
    pointer = told(("number", "trial", "d"), ("value", called(key), ".4g"), ("best", "best so far", ".4g"))
    line = {"type": "line", "interpolate": "step-after", "color": OURS}
    scale = {"zero": False, "nice": True}
    layers = [
        layer(line, {"x": x, "y": axis("best", called(key), scale=scale)}),
        layer(
            {**DOT, "size": 28, "opacity": 0.6}, {"x": x, "y": axis("value", called(key)), "tooltip": pointer}
        ),
    ]
    said = f"{called(key)} of the trials that keep the goal, and the best so far."
    return Plot("Best so far", said, spec(rows, 240, layer=layers))


def axes(found: Mapping[str, Any]) -> list[str]:
    """Keys of values: the objectives first, then others that any trial has."""
    keys = dict.fromkeys([*found["goal"]["minimise"], *(limit_key(one) for one in found["goal"]["limits"])])
    others = [key for trial in found["trials"] for key in trial["values"]]
    return list(dict.fromkeys([*keys, "size", "drop", *others]))


def limit_key(limit: Mapping[str, Any]) -> str:
    """The key of the value that a limit is of."""
    return f"{limit['metric']}@{limit['workload']}" if limit["workload"] else limit["metric"]


def within(found: Mapping[str, Any], values: Mapping[str, float]) -> bool:
    """Whether values keep every limit of the goal."""
    for limit in found["goal"]["limits"]:
        value = values.get(limit_key(limit))
        if value is None or (value > limit["limit"] if limit["bound"] == "<=" else value < limit["limit"]):
            return False
    return True


def rises(key: str) -> bool:
    """Whether more of a value is better."""
    return key.startswith("speedup")


def called(key: str) -> str:
    """A value with its unit."""
    metric, _, workload = key.partition("@")
    unit = {"latency": "ms", "size": "MB", "drop": "points lost", "speedup": "times as fast"}.get(
        metric, metric
    )
    return f"{unit} at {workload}" if workload else unit


def _scatter(found: Mapping[str, Any], x: str, y: str, title: str, joined: bool = False) -> Plot | None:
    """joined: draws a line along the front, which is one in these two values alone."""
    rows = [row for trial in found["trials"] if (row := _row(found, trial, x, y))]
    if not rows:
        return None
    base = found.get("baseline") or {}
    if x in base and y in base:
        rows.append({"x": base[x], "y": base[y], "what": EXPORT, "name": EXPORT, "pipeline": ""})
    scale = {"zero": False, "nice": True, "padding": 10}
    at = {"x": axis("x", called(x), scale=scale), "y": axis("y", called(y), scale=scale)}
    shown = {each["what"] for each in rows}
    colour = coloured("what", {what: name for what, name in COLOURS.items() if what in shown})
    pointer = told(
        ("name", "trial", ""), ("what", "", ""), ("x", called(x), ".4g"), ("y", called(y), ".4g"),
        ("pipeline", "pipeline", ""),
    )  # fmt: skip
    member = [{"filter": f"datum.what == '{MEMBER}'"}]
    stairs = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "color": OURS, "opacity": 0.6}
    size = {"condition": {"test": member[0]["filter"], "value": 110}, "value": 42}
    layers = [
        *_limits(found, x, y, scale),
        *([layer(stairs, {**at, "order": {"field": "x"}}, transform=member)] if joined else []),
        layer({**DOT, "opacity": 0.85}, {**at, "color": colour, "size": size, "tooltip": pointer}),
    ]
    said = (
        f"Every trial that was measured and scored: {called(x)} against {called(y)}; dashed lines are limits."
    )
    return Plot(title, said, spec(rows, 340, layer=layers))


def _row(found: Mapping[str, Any], trial: Mapping[str, Any], x: str, y: str) -> dict[str, Any] | None:
    values = trial["values"]
    if trial["state"] != "complete" or x not in values or y not in values:
        return None
    what = MEMBER if trial["number"] in found["front"] else WITHIN if within(found, values) else BEYOND
    pipeline = trial["pipeline"]
    short = pipeline if len(pipeline) <= LONG else pipeline[:LONG] + " …"
    return {"x": values[x], "y": values[y], "what": what, "name": f"{trial['number']}", "pipeline": short}


def _limits(found: Mapping[str, Any], x: str, y: str, scale: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """A dashed line at each limit of the two values."""
    mark = {"type": "rule", "strokeDash": [4, 4]}
    lines = []
    for limit in found["goal"]["limits"]:
        for channel, key in (("x", x), ("y", y)):
            if limit_key(limit) == key:
                place = axis(channel, called(key), scale=scale)
                lines.append(layer(mark, {channel: place}, data={"values": [{channel: limit["limit"]}]}))
    return lines

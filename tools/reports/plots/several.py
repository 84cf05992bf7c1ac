"""Several bundles in one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...build.steps import BUNDLE
from .base import DOT, LOGARITHMIC, SPAN, Plot, axis, layer, rows_of, spec, told
from .timings import timings

Records = Mapping[str, Mapping[str, Any]]


def times(records: Records, measure: str = "ms") -> Plot | None:
    """A bundle a colour. measure: "ms" of a call, or "times" as fast as what each was compared with."""
    rows: list[dict[str, Any]] = []
    for name, record in records.items():
        for each in timings(record):
            if each.name != BUNDLE or (measure == "times" and (each.times is None or each.interval is None)):
                continue
            low, high = each.interval if measure == "times" and each.interval else (each.low, each.high)
            value = each.times if measure == "times" else each.ms
            ends = {"value": value, "low": low, "high": high, "than": each.than}
            rows.append({"workload": each.workload, "bundle": name, **ends})
    if not rows:
        return None
    than = ", ".join(dict.fromkeys(row["than"] for row in rows))
    title = f"times as fast as {than}" if measure == "times" else "ms of a call, logarithmic"
    scale = {"zero": True} if measure == "times" else LOGARITHMIC
    names = list(records)
    shared = {
        "y": rows_of("workload", list(dict.fromkeys(row["workload"] for row in rows))),
        "yOffset": {"field": "bundle", "sort": names},
        "color": by_bundle(names),
    }
    pointer = told(
        ("bundle", "bundle", ""), ("workload", "calls of", ""), ("value", title, ".3f"), 
        ("low", "from", ".3f"), ("high", "to", ".3f"),
    )  # fmt: skip
    start, at = (axis(field, title, scale=scale) for field in ("low", "value"))
    layers = [layer(SPAN, {"x": start, "x2": {"field": "high"}}), layer(DOT, {"x": at, "tooltip": pointer})]
    step = {"step": max(30, 16 * len(names)), "for": "position"}
    said = "the 95% interval of the median" if measure == "times" else "quartiles over rounds"
    return Plot(
        f"Times as fast as {than}" if measure == "times" else "Time of a call",
        f"Of each bundle by workload, with {said}.",
        spec(rows, step, layer=layers, encoding=shared),
    )


def quality(records: Records) -> Plot | None:
    """Points lost against megabytes; bundles judged by one metric on as many rows of one file."""
    found = {
        name: record
        for name, record in records.items()
        if record.get("quality") and record.get("weight_bytes")
    }
    judged = {(q["score"]["metric"], q["rows"], q["source"]) for q in (r["quality"] for r in found.values())}
    if len(found) < 2 or len(judged) != 1:
        return None
    rows = [
        {"bundle": name, "mb": record["weight_bytes"][0] / 1e6, "drop": record["quality"]["drop"]}
        for name, record in found.items()
    ]
    metric, count, source = judged.pop()
    scale = {"zero": False, "padding": 16, "nice": True}
    encoding = {
        "x": axis("mb", "MB of weights", scale=scale),
        "y": axis("drop", f"points of {metric} lost", scale={**scale, "reverse": True}),
        "color": by_bundle(list(records)),
        "tooltip": told(("bundle", "bundle", ""), ("mb", "MB", ".2f"), ("drop", "points lost", ".2f")),
    }
    return Plot(
        "Quality against size",
        f"Points of {metric} lost on {count} rows of {source}, and megabytes: best is up and left.",
        spec(rows, 240, mark=DOT, encoding=encoding),
    )


def by_bundle(names: Sequence[str]) -> dict[str, Any]:
    """A channel with a colour for each bundle."""
    return {
        "field": "bundle",
        "type": "nominal",
        "scale": {"domain": list(names), "range": [f"class{number % 6}" for number in range(len(names))]},
        "legend": {"title": None, "orient": "top", "columns": 1, "labelLimit": 260},
    }

"""Quality against size, pass after pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import DOT, OURS, Plot, axis, layer, spec, told

LITTLE = 0.005  # share of the bytes, and points, below which nothing moved


def path(record: Mapping[str, Any]) -> Plot | None:
    """The way of quality and size along the pipeline: a point for the original, and for each pass that was
    judged on the rows that tune; the bundle's own point is judged on the rows that nothing was tuned on."""
    quality, held = record.get("quality"), record.get("weight_bytes")
    if not quality or not held:
        return None
    metric = quality["score"]["metric"]
    rows = [{"what": "original", "mb": held[1] / 1e6, "score": quality["reference"]["value"], "order": 0}]
    for number, step in enumerate(record.get("steps", ()), 1):
        if step["quality"] and step["status"] == "applied" and step["quality"]["value"] is not None:
            score, megabytes = step["quality"]["value"], step["bytes"][1] / 1e6
            point = {"mb": megabytes, "score": score, "order": number}
            rows.append({"what": f"after {step['pass']}", **point})
    rows.append({"what": "bundle", "mb": held[0] / 1e6, "score": quality["score"]["value"], "order": 10_000})
    if any(row["score"] is None for row in rows):
        return None
    alike = abs(held[0] - held[1]) < LITTLE * held[1] and abs(quality["drop"]) < LITTLE
    if alike:
        return None
    scale = {"zero": False, "padding": 16, "nice": True}
    pointer = told(("what", "what", ""), ("mb", "MB", ".2f"), ("score", metric, ".2f"))
    at = {"x": axis("mb", "MB of weights", scale=scale), "y": axis("score", metric, scale=scale)}
    ends = "datum.what == 'original' || datum.what == 'bundle'"
    label = {"type": "text", "dy": -12}
    layers = [
        layer({"type": "line", "opacity": 0.4, "color": OURS}, {**at, "order": {"field": "order"}}),
        layer({**DOT, "color": OURS}, {**at, "tooltip": pointer}),
        layer(label, {**at, "text": {"field": "what"}}, transform=[{"filter": ends}]),
    ]
    return Plot(
        "Quality against size",
        f"{metric} and megabytes of weights along the pipeline. Passes are judged on the rows that tune, the "
        "original and the bundle on those that nothing was tuned on.",
        spec(rows, 240, layer=layers),
    )

"""What quantization lost in each layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .base import Plot, axis, spec, told


def layers(record: Mapping[str, Any]) -> Plot | None:
    """Signal to noise of every quantized layer's output, in the order of their names."""
    found = [each for each in record.get("quantization") or () if each["snr"] is not None]
    if not found:
        return None
    found.sort(key=lambda each: _natural(each["weight"]))
    rows = [
        {"place": number, "layer": each["weight"], "kernel": each["kernel"], "snr": each["snr"],
         "clipped": each["clipped"], "before": each["before_us"], "after": each["after_us"]}
        for number, each in enumerate(found, 1)
    ]  # fmt: skip
    pointer = told(
        ("layer", "weight", ""), ("kernel", "kernel", ""), ("snr", "dB", ".1f"), 
        ("clipped", "clipped", ".2%"),        ("before", "µs before", ".0f"), ("after", "µs after", ".0f"),
    )  # fmt: skip
    names = sorted({each["kernel"] for each in rows})
    colour = {
        "field": "kernel",
        "type": "nominal",
        "scale": {"domain": names, "range": [f"class{number % 6}" for number in range(len(names))]},
        "legend": {"title": None, "orient": "top", "columns": 1, "labelLimit": 260},
    }
    encoding = {
        "x": axis("place", "quantized layers, in the order of their names", axis={"tickMinStep": 1}),
        "y": axis("snr", "dB, higher is better", scale={"zero": False, "padding": 10}),
        "color": colour,
        "tooltip": pointer,
    }
    return Plot(
        "Loss by layer",
        "Signal to noise of what each quantized layer gives, in decibels: 20 dB is an error of a tenth.",
        spec(rows, 240, mark={"type": "point", "filled": True, "size": 60}, encoding=encoding),
    )


def _natural(name: str) -> list[Any]:
    """Sorts layer.2 before layer.10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]

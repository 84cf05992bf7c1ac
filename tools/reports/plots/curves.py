"""How training went: the loss by step, on what was trained on and on what was held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import OURS, Plot, axis, coloured, spec, told

TRAINED, HELD_OUT = "trained on", "held out"


def curves(record: Mapping[str, Any]) -> list[Plot]:
    """A plot for every pass of the bundle that trained."""
    return [
        _curve(step) for step in record.get("steps", ()) if step.get("curves") and step["status"] == "applied"
    ]


def _curve(step: Mapping[str, Any]) -> Plot:
    named = {"loss": TRAINED, "held-out loss": HELD_OUT}
    rows = [
        {"step": at, "loss": value, "on": named.get(name, name)}
        for name, points in step["curves"].items()
        for at, value in points
        if value is not None
    ]
    names = dict.fromkeys(row["on"] for row in rows)
    name = step["pass"].partition("{")[0]
    pointer = told(("on", "on", ""), ("step", "step", "d"), ("loss", "loss", ".4g"))
    encoding = {
        "x": axis("step", "step"),
        "y": axis("loss", "loss", scale={"zero": False}),
        "color": coloured("on", {each: "plain" if each == TRAINED else OURS for each in names}),
        "tooltip": pointer,
    }  # fmt: skip
    return Plot(
        f"Training of {name}",
        "The loss by step: means of neighbouring steps on what was trained on, and what was held out.",
        spec(rows, 220, mark={"type": "line", "point": len(rows) < 60}, encoding=encoding),
    )

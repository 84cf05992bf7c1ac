"""What all plots share: a title, a sentence, and a Vega-Lite specification whose colours the page chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Names that style.css has colours for, by day and by night; page.js puts them in.
OURS, USUAL, OTHER = "ours", "usual", "other"

DOT: Mapping[str, Any] = {"type": "point", "filled": True, "size": 90}
SPAN: Mapping[str, Any] = {"type": "rule", "strokeWidth": 3, "opacity": 0.45}  # from the low end to the high

LOGARITHMIC: Mapping[str, Any] = {"type": "log", "nice": False, "padding": 12}


@dataclass(frozen=True)
class Plot:
    """title: a heading. said: what it shows and in which unit, a sentence for those who don't see it too.
    spec: Vega-Lite 6, as wide as its place; colours of scales are names that the page has colours for."""

    title: str
    said: str
    spec: Mapping[str, Any]


def spec(rows: Sequence[Mapping[str, Any]], height: Any, **rest: Any) -> dict[str, Any]:
    """A specification over rows. height: pixels, or {"step": pixels of a row}."""
    return {"data": {"values": list(rows)}, "width": "container", "height": height, **rest}


def layer(mark: Any, encoding: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """One layer of several."""
    return {"mark": mark, "encoding": dict(encoding), **more}


def axis(field: str, title: str, kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    """A channel of a field."""
    return {"field": field, "type": kind, "title": title, **more}


def rows_of(field: str, names: Sequence[str]) -> dict[str, Any]:
    """A channel of names from the top down, in the order given, without a title."""
    return axis(field, None, "nominal", sort=list(names), axis={"labelLimit": 150, "title": None})  # type: ignore[arg-type]


def coloured(field: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """A channel of colours by name: value -> name of a colour."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    legend = {"title": None, "orient": "top", "columns": 2, "labelLimit": 150}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend if len(colours) > 1 else None}


def told(*fields: tuple[str, str, str]) -> list[dict[str, Any]]:
    """What the pointer shows: (field, title, format) each; numbers where there is a format."""
    return [
        {"field": field, "title": title, "type": "quantitative" if form else "nominal"}
        | ({"format": form} if form else {})
        for field, title, form in fields
    ]

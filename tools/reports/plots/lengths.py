"""How long the user's texts are, and what that means for padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import OURS, Plot, axis, rows_of, spec, told


def lengths(record: Mapping[str, Any]) -> Plot | None:
    """Texts by their number of tokens."""
    found = record.get("texts")
    if not found:
        return None
    rows = [{"tokens": int(tokens), "texts": count} for tokens, count in found["lengths"].items()]
    encoding = {
        "x": axis("tokens", "tokens of a text", bin={"maxbins": 30}),
        "y": axis("texts", "texts", aggregate="sum"),
        "tooltip": [
            {"field": "tokens", "type": "quantitative", "bin": {"maxbins": 30}, "title": "tokens"},
            {"field": "texts", "type": "quantitative", "aggregate": "sum", "title": "texts"},
        ],
    }
    return Plot(
        "Lengths of your texts",
        f"{found['rows']} texts of {found['source']} by their number of tokens.",
        spec(rows, 200, mark={"type": "bar", "color": OURS}, encoding=encoding),
    )


def padding(record: Mapping[str, Any]) -> Plot | None:
    """The share of a batch that is padding, by rows to a batch."""
    found = record.get("texts")
    if not found or not found["padding"]:
        return None
    rows = [{"batch": f"{batch} rows", "share": share} for batch, share in found["padding"].items()]
    encoding = {
        "y": rows_of("batch", [row["batch"] for row in rows]),
        "x": axis(
            "share", "share of a batch that is padding", scale={"domain": [0, 1]}, axis={"format": ".0%"}
        ),
        "tooltip": told(("batch", "a batch of", ""), ("share", "padding", ".1%")),
    }
    return Plot(
        "Padding in batches of them",
        "The share of tokens that are padding where texts are put into batches as they come.",
        spec(
            rows, {"step": 30}, mark={"type": "bar", "color": OURS, "cornerRadiusEnd": 2}, encoding=encoding
        ),
    )

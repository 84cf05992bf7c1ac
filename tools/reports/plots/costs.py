"""Where the time of a call goes, before and after, by kind of block and block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .base import OURS, Plot, axis, coloured, rows_of, spec, told

BEFORE, AFTER = "before", "after"


def kinds(record: Mapping[str, Any]) -> Plot | None:
    """Milliseconds by kind of block, from the runtime's own profile."""
    found = record.get("profile")
    if not found:
        return None
    sums: dict[tuple[str, str], list[float]] = {}
    for when in (BEFORE, AFTER):
        for part in found[when]:
            if part["ms"] is not None:
                sums.setdefault((called(part["kind"]), when), []).append(part["ms"])
    rows: list[dict[str, Any]] = [
        {"kind": kind, "when": when, "ms": sum(ms), "count": len(ms)} for (kind, when), ms in sums.items()
    ]
    rows.sort(key=lambda row: -row["ms"])
    names = list(dict.fromkeys(row["kind"] for row in rows))
    pointer = told(
        ("kind", "blocks", ""), ("when", "when", ""), ("ms", "ms", ".3f"), ("count", "blocks", "d")
    )
    encoding = {
        "y": rows_of("kind", names),
        "yOffset": {"field": "when", "sort": [BEFORE, AFTER]},
        "x": axis("ms", f"ms in a call of {found['workload']}"),
        "color": coloured("when", {BEFORE: "plain", AFTER: OURS}),
        "tooltip": pointer,
    }
    return Plot(
        "Where the time goes",
        f"Milliseconds of each kind of block in a call of {found['workload']}, from ONNX Runtime's profile, "
        "before (the un-rewritten export) and after.",
        spec(
            rows,
            {"step": 34, "for": "position"},
            mark={"type": "bar", "cornerRadiusEnd": 2},
            encoding=encoding,
        ),
    )


def blocks(record: Mapping[str, Any]) -> Plot | None:
    """The same, a place for every block in the order in which it runs."""
    found = record.get("profile")
    if not found:
        return None
    rows: list[dict[str, Any]] = []
    for when in (BEFORE, AFTER):
        numbers = Counter[str]()
        for part in found[when]:
            numbers[part["kind"]] += 1
            if part["ms"] is not None:
                name = f"{called(part['kind'])} {numbers[part['kind']]}"
                rows.append({"block": name, "when": when, "ms": part["ms"], "kind": called(part["kind"])})
    names = list(dict.fromkeys(row["block"] for row in rows))
    if len(names) < 4:
        return None
    bare = {"labels": False, "ticks": False}
    encoding = {
        "x": axis("block", "blocks, in the order in which they run", "nominal", sort=names, axis=bare),
        "xOffset": {"field": "when", "sort": [BEFORE, AFTER]},
        "y": axis("ms", "ms"),
        "color": coloured("when", {BEFORE: "plain", AFTER: OURS}),
        "tooltip": told(("block", "block", ""), ("when", "when", ""), ("ms", "ms", ".4f")),
    }
    return Plot(
        "Block by block", "The same, for every block.", spec(rows, 200, mark="bar", encoding=encoding)
    )


def called(kind: str) -> str:
    """A kind of block in words."""
    return {"other": "outside of blocks", "feed_forward": "feed-forward"}.get(kind, kind.replace("_", " "))

"""Where the time of a call goes, before and after, by kind of block and block by block."""

from __future__ import annotations

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
            sums.setdefault((called(part["block"].partition(" ")[0]), when), []).append(part["ms"])
    rows: list[dict[str, Any]] = [
        {"kind": kind, "when": when, "ms": sum(ms), "count": len(ms)} for (kind, when), ms in sums.items()
    ]
    rows.sort(key=lambda row: -row["ms"])
    names = list(dict.fromkeys(row["kind"] for row in rows))
    pointer = told(("kind", "kind", ""), ("when", "when", ""), ("ms", "ms", ".3f"), ("count", "blocks", "d"))
    encoding = {
        "y": rows_of("kind", names),
        "yOffset": {"field": "when", "sort": [BEFORE, AFTER]},
        "x": axis("ms", f"ms in a call of {found['workload']}"),
        "color": coloured("when", {BEFORE: "plain", AFTER: OURS}),
        "tooltip": pointer,
    }
    mark = {"type": "bar", "cornerRadiusEnd": 2}
    return Plot(
        "By kind of block",
        f"Milliseconds in a call of {found['workload']}, from ONNX Runtime's profile, before (the export "
        "as it came) and after.",
        spec(rows, {"step": 34, "for": "position"}, mark=mark, encoding=encoding),
    )


def blocks(record: Mapping[str, Any]) -> Plot | None:
    """The same, a place for every block in the order in which they run."""
    found = record.get("profile")
    if not found:
        return None
    rows = [
        {"block": named(part["block"]), "when": when, "ms": part["ms"]}
        for when in (BEFORE, AFTER)
        for part in found[when]
    ]
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
    return {"": "outside of blocks", "feed_forward": "feed-forward"}.get(kind, kind.replace("_", " "))


def named(block: str) -> str:
    """A block in words, counted from 1."""
    kind, _, number = block.partition(" ")
    return f"{called(kind)} {int(number) + 1}" if number else called(kind)

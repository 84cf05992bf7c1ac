"""Several bundles on one page, and as rows for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..build.steps import BUNDLE
from .page import Numbered, Section, rendered, subtitle, title, warnings
from .plots import several
from .plots.timings import timings
from .reading import Reading
from .tables import Table, flat, markdown, speed, steps
from .variants import sentences, variants


def compared(found: Sequence[Reading]) -> str:
    """The page of several bundles."""
    records = {each.name: each.record for each in found}
    numbered = Numbered()
    sections = [
        Section(
            "Speed", numbered(several.times(records), several.times(records, "times")), [], apart(records)
        ),
        Section("Quality and size", numbered(several.quality(records))),
    ]
    bundles = [
        {
            "name": each.name,
            "title": title(each.record),
            "subtitle": subtitle(each.record),
            "warnings": warnings(each.record),
            "verdict": each.record.get("verdict") or (),
            "tables": [speed(each.record), steps(each.record)],
            "pipeline": each.record.get("pipeline") or "",
        }
        for each in found
    ]
    return rendered(
        "compared.html",
        numbered.shown,
        title=f"{len(found)} bundles compared",
        overview=overview(records),
        sections=[each for each in sections if each.plots or each.said],
        bundles=bundles,
    )


def overview(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a bundle: ms at each workload, how many times as fast, megabytes, quality."""
    measured = {
        name: [each for each in timings(record) if each.name == BUNDLE] for name, record in records.items()
    }
    works = list(dict.fromkeys(each.workload for found in measured.values() for each in found))
    head = ["bundle", "model", *(f"ms {work} (times as fast, 95% interval)" for work in works)]
    rows = []
    for name, record in records.items():
        at = {each.workload: each for each in measured[name]}
        cells = [_cell(at[work]) if work in at else "" for work in works]
        quality, held = record.get("quality") or {}, record.get("weight_bytes")
        size = f"{held[0] / 1e6:.1f}" if held else ""
        score = (quality.get("score") or {}).get("value")
        scored = "" if score is None else f"{quality['score']['metric']} {score:.2f}"
        lost = "" if quality.get("drop") is None else f"{quality['drop']:.2f}"
        goal = {True: "met", False: "NOT met"}.get(record.get("met"), "")  # type: ignore[arg-type]
        rows.append([name, title(record), *cells, size, scored, lost, goal])
    return Table([*head, "MB", "quality", "points lost", "goal"], rows, texts=2)


def _cell(each: Any) -> str:
    if each.times is None or each.interval is None:
        return f"{each.ms:.3g}"
    return f"{each.ms:.3g} ({each.times:.2f}, {each.interval[0]:.2f} – {each.interval[1]:.2f})"


def apart(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What keeps times from being compared: bundles that were measured on other processors or threads."""
    machines: dict[str, list[str]] = {}
    for name, record in records.items():
        if timings(record):
            target, threads = record.get("target") or {}, record["measurements"]["threads"]
            known = " ".join([str(target.get("arch", "")), *target.get("isa", ())])
            machines.setdefault(f"{known}, threads: {threads}", []).append(name)
    if len(machines) < 2:
        return ["Each bundle was measured in a run of its own: ratios hold within runs, milliseconds drift."]
    told = "; ".join(f"{', '.join(names)} on {machine}" for machine, names in machines.items())
    return [f"Milliseconds were measured on different processors or threads and can't be compared: {told}."]


def as_markdown(found: Sequence[Reading]) -> str:
    """The overview, and each bundle's tables."""
    parts = ["# Report", "", *markdown(overview({each.name: each.record for each in found})).splitlines(), ""]
    for each in found:
        parts += [f"## {each.name}", "", *(f"{sentence}\n" for sentence in each.record.get("verdict") or ())]
        parts += [f"{sentence}\n" for sentence in sentences(each.record)]
        for name, table in (
            ("Variants", variants(each.record)),
            ("Speed", speed(each.record)),
            ("Every step", steps(each.record)),
        ):
            parts += [f"### {name}", "", *markdown(table).splitlines(), ""] if table.rows else []
    return "\n".join(parts).rstrip() + "\n"


def as_rows(found: Sequence[Reading]) -> list[dict[str, Any]]:
    """Numbers for other programs, as `--format json` prints them."""
    return [row for each in found for row in flat(each.name, each.record)]


def as_csv(found: Sequence[Reading]) -> str:
    """The same rows as CSV (RFC 4180), with a line of names."""
    rows = as_rows(found)
    names = list(dict.fromkeys(name for row in rows for name in row))
    written = io.StringIO()
    writer = csv.DictWriter(written, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()

"""A bundle's evidence as rows of text, whatever they are then written as."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..build.steps import BUNDLE
from .plots.timings import timings


@dataclass(frozen=True)
class Table:
    """head: of the columns, each with its unit. rows: as many cells each. texts: columns that hold words."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def markdown(table: Table) -> str:
    """A table in Markdown, a line a row."""
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    return "".join("| " + " | ".join(map(cell, row)) + " |\n" for row in rows)


def as_lines(table: Table) -> str:
    """A table as CSV (RFC 4180), with a line of names."""
    written = io.StringIO()
    csv.writer(written).writerows([table.head, *table.rows])
    return written.getvalue()


def speed(record: Mapping[str, Any]) -> Table:
    """A row a contestant at a workload: ms with quartiles, times as fast with its 95% interval."""
    found = timings(record)
    than = found[0].than if found else ""
    energy = any(each.joules is not None for each in found)
    head = ["calls of", "", "ms", "quartiles", f"times as fast as {than}", "95% interval"]
    rows = []
    for each in found:
        row = [each.workload, each.name, f"{each.ms:.3g}", f"{each.low:.3g} – {each.high:.3g}"]
        row += ["", ""] if each.times is None or each.interval is None else [
            f"{each.times:.2f}", f"{each.interval[0]:.2f} – {each.interval[1]:.2f}"
        ]  # fmt: skip
        rows.append(row + ([joules(each.joules)] if energy else []))
    return Table([*head, "joules a call"] if energy else head, rows, texts=2)


def joules(value: float | None) -> str:
    """Joules as people read them; empty where the machine tells none."""
    if value is None:
        return ""
    return f"{value:.3g} J" if value < 1e4 else f"{value / 3.6e6:.3g} kWh"


def steps(record: Mapping[str, Any]) -> Table:
    """A row a pass: what it promised, what came of it, what it cost and brought."""
    found = record.get("steps") or ()
    names = list(dict.fromkeys(work for step in found for work in step["ratios"]))
    energy = any(step.get("joules") is not None for step in found)
    head = ["pass", "contract", "result", "s", "MB after", *(f"times as fast, {name}" for name in names)]
    head += ["quality", *(["energy"] if energy else [])]
    rows = []
    for step in found:
        ratios = [step["ratios"].get(name) for name in names]
        score = (step["quality"] or {}).get("value")
        row = [step["pass"].replace(",", ", "), contract(step["effect"]), _result(record, step)]
        row += [f"{step['seconds'] + step['check_seconds']:.1f}", f"{step['bytes'][1] / 1e6:.1f}"]
        row += [f"{ratio['median']:.2f}" if ratio else "" for ratio in ratios]
        row += ["" if score is None else f"{score:.2f}"]
        rows.append(row + ([joules(step.get("joules"))] if energy else []))
    return Table(head, rows, texts=3)


def contract(effect: Mapping[str, Any]) -> str:
    """A contract in two words: how far outputs may move."""
    if effect["kind"] == "exact":
        return f"≤ {effect['tolerance']:g}"
    return f"{effect['metric']} ≥ {effect['limit']:g}" if effect["kind"] == "bounded" else "lossy"


def _result(record: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    if step["status"] == "slower":
        return "slower, undone"
    graphs = step.get("graphs")
    if step["status"] != "applied" or graphs is None or len(graphs) == len(record.get("graphs") or graphs):
        return step["status"]
    return f"applied in {', '.join(graphs)}"


def made(record: Mapping[str, Any]) -> Table:
    """What the bundle was made from, for what, and how."""
    target, config = record.get("target") or {}, record.get("config") or {}
    versions = record.get("versions") or {}
    rows = [
        ("model", config.get("model", "")),
        ("preset", config.get("preset", "")),
        ("data", config.get("data", "")),
        ("target", " ".join([target.get("name", ""), target.get("arch", ""), *target.get("isa", ())])),
        ("backend", record.get("backend", "")),
        ("threads", str(record.get("measurements", {}).get("threads", ""))),
        ("rounds", str(record.get("measurements", {}).get("rounds", ""))),
        ("seed", str(record.get("seed", ""))),
        ("seconds", str(record.get("seconds", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]  # fmt: skip
    return Table(("", ""), [row for row in rows if row[1]], texts=2)


def flat(name: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Numbers for programs: a row a contestant at a workload, beside size and quality of the bundle."""
    quality = record.get("quality") or {}
    held, original = record.get("weight_bytes") or (None, None)
    common = {
        "bundle": name,
        "model": (record.get("config") or {}).get("model"),
        "target": (record.get("target") or {}).get("name"),
        "threads": record.get("measurements", {}).get("threads"),
    }
    scored = {
        "weight_bytes": held,
        "original_weight_bytes": original,
        "metric": (quality.get("score") or {}).get("metric"),
        "score": (quality.get("score") or {}).get("value"),
        "original_score": (quality.get("reference") or {}).get("value"),
        "points_lost": quality.get("drop"),
        "goal_met": record.get("met"),
    }
    rows = [
        {
            **common,
            "workload": each.workload,
            "contestant": each.name,
            "ms": each.ms,
            "ms_low": each.low,
            "ms_high": each.high,
            "compared_with": each.than,
            "times_as_fast": each.times,
            "interval_low": each.interval[0] if each.interval else None,
            "interval_high": each.interval[1] if each.interval else None,
            "joules": each.joules,
            **(scored if each.name == BUNDLE else dict.fromkeys(scored)),
        }
        for each in timings(record)
    ]
    return rows or [{**common, "contestant": BUNDLE, **scored}]

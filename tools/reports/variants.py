"""A bundle's variants for several instruction sets, as its pages tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..build.steps import BUNDLE
from .plots.timings import timings
from .tables import Table
from .tables import markdown as as_markdown

Variants = Sequence[Mapping[str, Any]]


def told(variants: Variants) -> dict[str, Any]:
    """The record that the page in a bundle is made of: that of the best variant that was timed, whatever
    processor the page is made on."""
    timed = [each for each in variants if _timed(each)]
    shown = (timed or list(variants))[0]
    return {**shown["manifest"], "variants": list(variants)}


def variants(record: Mapping[str, Any]) -> Table:
    """A row a variant, best first: what the processor must have, its time, and its weights."""
    found: Variants = record.get("variants") or ()
    head = ["variant", "runs on", "times as fast", "MB of weights shared with others", "MB of its own"]
    rows = [
        [
            each["target"],
            f"{each['arch']} with {', '.join(each['needs'])}" if each["needs"] else each["arch"],
            _speed(each),
            *(f"{each['weights'][name] / 1e6:.3g}" for name in ("shared", "own")),
        ]
        for each in found
    ]
    return Table(head, rows, texts=2)


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Which variant is chosen, which was not timed, and which the rest of the page is about."""
    found: Variants = record.get("variants") or ()
    if not found:
        return []
    lines = [
        "Whatever loads the bundle takes the first of these that its processor can run. Weights of equal "
        "content stand in it once; those that a variant packs in the order of its own kernels, or rounds for "
        "its own instructions, can't be shared. Times are of the machine that built them all."
    ]
    untimed = [each["target"] for each in found if not _timed(each)]
    if untimed:
        lines.append(
            f"Built for another processor than that of the machine that built, and not timed: "
            f"{', '.join(untimed)}."
        )
    if target := (record.get("target") or {}).get("name"):
        lines.append(f"All else here is about the variant for {target}.")
    return lines


def markdown(found: Variants, reports: Mapping[str, str]) -> str:
    """report.md: what the variants are, then the report of each, by its target."""
    record = {"variants": found}
    parts = ["# Variants", "", *(f"{line}\n" for line in sentences(record)), as_markdown(variants(record))]
    parts += [f"## For {target}\n\n" + _below(text) for target, text in reports.items()]
    return "\n".join(parts).rstrip() + "\n"


def _below(report: str) -> str:
    """A report with its headings two levels down."""
    return "\n".join(f"##{line}" if line.startswith("#") else line for line in report.splitlines()) + "\n"


def _timed(variant: Mapping[str, Any]) -> bool:
    return any(each.name == BUNDLE for each in timings(variant["manifest"]))


def _speed(variant: Mapping[str, Any]) -> str:
    """Least and most over the workloads."""
    found = [each for each in timings(variant["manifest"]) if each.name == BUNDLE]
    times = sorted(each.times for each in found if each.times is not None)
    if not times:
        return "timed alone" if found else "not timed"
    low, high = f"{times[0]:.2f}", f"{times[-1]:.2f}"
    return low if low == high else f"{low} to {high}"

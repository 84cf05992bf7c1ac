"""The page of a search, made from its front.json (docs/design.md, "A search and its record")."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import BundleError
from ...ir.host.files import FAULTS, MIB, read_regular, why
from .page import Numbered, Section, rendered, title
from .plots import front as plots
from .summary import Tile
from .tables import Table

FRONT = "front.json"
FORMAT = 1  # of front.json, up to which it is read
MOST_BYTES = 64 * MIB


def is_search(folder: str | Path) -> bool:
    """Whether a directory is that of a search."""
    return Path(folder, FRONT).is_file()


def read_front(folder: str | Path) -> dict[str, Any]:
    """The record of a search.

    Raises:
        BundleError: it can't be read, is damaged, or is of a newer format.
    """
    path = Path(folder, FRONT)
    try:
        found = json.loads(read_regular(path, MOST_BYTES))
        if found["format"] > FORMAT:
            raise BundleError(
                f"{path} has format {found['format']} and this graphwright reads up to {FORMAT}: "
                "pip install --upgrade graphwright"
            )
        searched(found)  # whatever a page needs is there
    except OSError as error:
        raise BundleError(f"{path} can't be read: {why(error)}") from error
    except FAULTS as error:
        raise BundleError(
            f"{path} is damaged ({why(error)}): optimize search --resume writes it anew"
        ) from error
    return found


def searched(found: Mapping[str, Any]) -> str:
    """The page of a search.

    Args:
        found: what front.json says.
    """
    numbered = Numbered()
    sections = [
        Section("What was found", numbered(plots.pareto(found)), [members(found)]),
        Section("On the way", numbered(plots.progress(found), plots.quality(found))),
    ]
    return rendered(
        "search.html",
        numbered.shown,
        title=f"Search: {title({'config': {'model': found['model']}})}",
        subtitle=_subtitle(found),
        warnings=_warnings(found),
        tiles=tiles(found),
        sections=[each for each in sections if each.plots or any(table.rows for table in each.tables)],
        trials=trials(found),
        notes=found.get("notes") or (),
    )


def tiles(found: Mapping[str, Any]) -> list[Tile]:
    """The best of each objective, and what was tried for it."""
    trials_of = {trial["number"]: trial for trial in found["trials"]}
    shown = []
    for key, number in found["best"].items():
        value, base = trials_of[number]["values"][key], (found.get("baseline") or {}).get(key)
        line = f"trial {number}" + (f"; the un-rewritten export's is {base:.4g}" if base is not None else "")
        shown.append(Tile(f"Best {key}", f"{value:.4g}", plots.called(key), [line], "good"))
    states = Counter(trial["state"] for trial in found["trials"])
    told = ", ".join(f"{count} {state}" for state, count in states.most_common())
    shown.append(Tile("Trials", str(len(found["trials"])), _lasted(found["seconds"]), [told]))
    return shown


def _lasted(seconds: float) -> str:
    return f"in {seconds / 3600:.1f} h" if seconds >= 5400 else f"in {seconds / 60:.0f} min"


def members(found: Mapping[str, Any]) -> Table:
    """A row a member of the front."""
    by_number = {trial["number"]: trial for trial in found["trials"]}
    keys = [key for key in plots.axes(found) if any(key in by_number[n]["values"] for n in found["front"])]
    rows = [
        [
            f"{number}: {by_number[number]['pipeline'].replace(',', ', ')}",
            found["bundles"].get(str(number), ""),
            by_number[number]["runtime"],
            *(_number(by_number[number]["values"].get(key)) for key in keys),
        ]
        for number in found["front"]
    ]
    return Table(["trial", "bundle", "runtime", *map(plots.called, keys)], rows, texts=3)


def trials(found: Mapping[str, Any]) -> Table:
    """A row a trial."""
    keys = plots.axes(found)
    rows = [
        [
            f"{each['number']}: {each['pipeline'].replace(',', ', ')}",
            each["state"] if each["same_as"] is None else f"same as {each['same_as']}",
            each["why"] or "",
            f"{each['seconds']:.1f}",
            *(_number(each["values"].get(key)) for key in keys),
        ]
        for each in found["trials"]
    ]
    return Table(["trial", "state", "why", "s", *map(plots.called, keys)], rows, texts=3)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _subtitle(found: Mapping[str, Any]) -> str:
    conditions = found.get("conditions") or {}
    target, threads = conditions.get("target"), conditions.get("threads")
    name = target.get("name") if isinstance(target, Mapping) else target
    parts = [
        f"goal {found['goal']['text']}",
        f"on {name}" if name else "",
        f"threads: {threads}" if threads else "",
    ]
    return ", ".join(part for part in parts if part)


def _warnings(found: Mapping[str, Any]) -> Sequence[str]:
    if found["met"]:
        return ()
    nearest = found["nearest"]
    near = (
        f" Trial {nearest} is nearest: {found['distance']:.2%} beyond the limits."
        if nearest is not None
        else ""
    )
    return [f"Nothing that was tried keeps the goal.{near}"]

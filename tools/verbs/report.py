"""`optimize report BUNDLE...`: what bundles say of themselves, as a page or as rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ...ir.errors import BundleError, ConfigError, GraphwrightError, did_you_mean
from ...ir.host.files import FAULTS, why
from ..reports.compared import as_csv, as_markdown, as_rows, compared
from ..reports.page import page
from ..reports.reading import Reading, read
from ..reports.searched import is_search, read_front, searched, trials
from ..reports.tables import as_lines, markdown

Format = Literal["html", "md", "json", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)


def chosen(asked: str | None, out: str | None) -> Format:
    """The format asked for, or else the one that the file's name ends in, or else a page.

    Raises:
        ConfigError: there is no such format.
    """
    name = asked or (Path(out).suffix[1:].lower() if out else "") or "html"
    for known in FORMATS:
        if name == known:
            return known
    where = "" if asked else f" (the end of {out})"
    raise ConfigError(
        f"{name!r}{where} is no format of a report: {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
    )


def report(bundles: Sequence[str], form: Format, grid: float | None = None) -> str:
    """The text of a report; of a search, a page or its record.

    Args:
        grid: grams of CO2 that a kilowatt-hour costs, for the page of a bundle.

    Raises:
        BundleError: one isn't a bundle, or has changed since it was built; or a search stands beside others.
    """
    if any(map(is_search, bundles)):
        return _search(bundles, form)
    found = read(bundles)
    try:
        return _told(found, form, grid)
    except FAULTS as error:  # its hash holds, and it says what no run would have written
        names = ", ".join(each.name for each in found)
        raise BundleError(
            f"the manifest of {names} is damaged ({why(error)}): build the bundle again"
        ) from error


def _told(found: Sequence[Reading], form: Format, grid: float | None) -> str:
    if form == "md":
        return as_markdown(found)
    if form == "json":
        return json.dumps(as_rows(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return as_csv(found) if form == "csv" else _page(found, grid)


def _search(folders: Sequence[str], form: Format) -> str:
    if len(folders) > 1:
        raise BundleError("a search has a page of its own: name it alone, or its members to compare them")
    found = read_front(folders[0])
    if form == "json":
        return json.dumps(found["trials"], indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "html":
        return searched(found)
    table = trials(found)
    return markdown(table) if form == "md" else as_lines(table)


def _page(found: Sequence[Reading], grid: float | None) -> str:
    return page(found[0].record, found[0].stages, grid) if len(found) == 1 else compared(found)


def written(text: str, out: str, force: bool) -> Path:
    """Writes a report, whole or not at all.

    Raises:
        GraphwrightError: a file is there and nobody said that it may go.
    """
    path = Path(out)
    if path.is_dir() or (path.exists() and not force):
        raise GraphwrightError(
            f"{out} exists" + (" and is a directory" if path.is_dir() else ": --force replaces it")
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path

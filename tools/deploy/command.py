"""What `optimize build` does with its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...ir.errors import ConfigError
from ...ir.host.files import why
from ..console import Console, complain
from . import junit, plan, schema, summary
from .builds import Builds


def dry_run(file: str, names: Sequence[str], console: Console) -> int:
    """Print what would be built."""
    cases = _cases(file, names)
    if console.json:
        console.value([{"name": each.name, "settings": each.settings} for each in cases])
    else:
        console.show(summary.planned(cases))
    return 0


def build(
    file: str,
    out: str,
    names: Sequence[str],
    lock: str | None,
    against: str | None,
    reports: tuple[str | None, str | None],
    console: Console,
    *,
    frozen: bool,
    again: bool,
    gate: bool,
) -> int:
    """Build, report, and say how it ends. reports: where JUnit XML and the Markdown summary go."""
    cases = plan.cases(schema.read(file))
    where = Path(lock) if lock else Path(file).with_suffix(".lock")
    builds = Builds(Path(out), where, frozen, again, console)
    results = builds.run(cases, names, gate, Path(against) if against else None)
    texts = (junit.junit(results, Path(file).name), summary.markdown(results))
    for path, text in zip(reports, texts, strict=True):
        if path:
            _write(path, text)
    if console.json:
        console.value(results.to_json())
    else:
        console.show(*summary.tables(results))
    for each in results.results:
        for fault in results.faults(each):
            complain(f"optimize: {each.name}: {fault}")
    return results.status


def _cases(file: str, names: Sequence[str]) -> Sequence[plan.Case]:
    cases = plan.cases(schema.read(file))
    return plan.only(cases, names) if names else cases


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {why(error)}") from error

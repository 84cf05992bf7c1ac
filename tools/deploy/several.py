"""One bundle for several targets: a build for each, then all of them over one copy of the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.bundles.folder import appearing
from ...backends.bundles.manifest import MANIFEST, PAGE, REPORT, sha256
from ...backends.joining.join import join
from ...ir.errors import BundleError
from ..config import RunConfig
from ..console import Console
from ..reports.page import page
from ..reports.variants import markdown, told
from .facts import size_of
from .frozen import compare, rebuild
from .lock import Decisions, Entry


def built(
    config: RunConfig,
    levels: Sequence[str],
    out: Path,
    console: Console,
    one: Callable[[RunConfig, Path], Entry],
) -> Entry:
    """Write the bundle whole or not at all; one that is there is replaced.

    Args:
        config: of any of the builds.
        levels: their targets.
        one: makes the bundle of one of them; what a lock says of it.

    Returns:
        What a lock says of the bundle: times are of the best variant that was timed, quality of the worst.

    Raises:
        GraphwrightError: a build failed, with its target.
    """
    entries: dict[str, Entry] = {}
    with _joining(out) as folder:
        for target in levels:
            console.say(f"For {target}:")
            entries[target] = one(config.model_copy(update={"target": target}), folder / target)
        order = _joined(folder, levels)
    return _together({target: entries[target] for target in order}, out)


def rebuilt(config: RunConfig, source: str, entry: Entry, out: Path, console: Console) -> None:
    """As `frozen.rebuild`, of an entry with variants."""
    with _joining(out) as folder:
        for target, each in entry.variants.items():
            rebuild(config.model_copy(update={"target": target}), source, each, folder / target, console)
        _joined(folder, list(entry.variants))
        compare(folder / _WHOLE, entry.record)
        if sha256(folder / _WHOLE / MANIFEST) != entry.bundle:
            raise BundleError(
                f"{MANIFEST} comes out with other bytes than the lock's: build without --frozen"
            )


_WHOLE = "whole"  # no target's name


@contextmanager
def _joining(out: Path) -> Iterator[Path]:
    """A directory for a bundle of each target, of which what `_joined` made takes the bundle's name."""
    with appearing(out, force=True) as folder:
        yield folder
        whole = folder / _WHOLE
        for path in list(folder.iterdir()):
            if path != whole:
                shutil.rmtree(path)
        for path in list(whole.iterdir()):
            path.rename(folder / path.name)
        whole.rmdir()


def _joined(folder: Path, levels: Sequence[str]) -> list[str]:
    """Joins what stands in a directory by its target. The targets, best first."""
    order: list[str] = []

    def pages(variants: list[dict[str, Any]]) -> dict[str, str]:
        order.extend(each["target"] for each in variants)
        reports = {target: (folder / target / REPORT).read_text("utf-8") for target in order}
        return {REPORT: markdown(variants, reports), PAGE: page(told(variants))}

    (folder / _WHOLE).mkdir()
    join(folder / _WHOLE, {target: folder / target for target in levels}, pages)
    return order


def _together(entries: Mapping[str, Entry], out: Path) -> Entry:
    """Best first."""
    timed = [each for each in entries.values() if each.facts.calls]
    first = (timed or list(entries.values()))[0]
    judged = [each.facts for each in entries.values() if each.facts.drop is not None]
    worst = max(judged, key=lambda facts: facts.drop or 0.0, default=first.facts)
    facts = replace(first.facts, size=size_of(out), drop=worst.drop, metric=worst.metric)
    tuning = {name: text for each in entries.values() for name, text in each.decisions.tuning.items()}
    statuses = {each.status for each in entries.values()}
    return replace(
        first,
        bundle=sha256(out / MANIFEST),
        facts=facts,
        decisions=Decisions(tuning=tuning),
        manifest=(out / MANIFEST).read_bytes(),
        report=(out / REPORT).read_bytes(),
        status=1 if 1 in statuses else max(statuses),
        problems=tuple(f"{target}: {each}" for target, entry in entries.items() for each in entry.problems),
        variants=entries,
    )

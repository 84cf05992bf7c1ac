"""Bundles as reports read them: each checked as `graphwright.load` checks it before anything is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import read_manifest, verify_files
from ...ir.errors import BundleError
from ...ir.host.files import MIB, read_regular

STAGES = "stages.json"
MOST_BYTES = 64 * MIB  # of what is read for the graph viewer


@dataclass(frozen=True)
class Reading:
    """A bundle. name: short, and its own among those read. record: its manifest. stages: its graph before and
    after each pass, None where the bundle was built without."""

    name: str
    record: Mapping[str, Any]
    stages: Mapping[str, Any] | None = None


def read(folders: Sequence[str | Path]) -> list[Reading]:
    """Bundles with their evidence.

    Raises:
        BundleError: one isn't a bundle, has changed since it was built, or is named twice.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise BundleError("a bundle is named twice: compare it with others")
    found = []
    for path, name in zip(paths, _names(paths), strict=True):
        manifest = read_manifest(path)
        verify_files(path, manifest)
        stages = None
        if STAGES in manifest.files:
            stages = json.loads(read_regular(path / STAGES, MOST_BYTES))
        found.append(Reading(name, manifest.record, stages))
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    parts = [path.resolve().parts[1:] for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]

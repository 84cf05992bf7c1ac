"""Measurements kept between runs, so that a second run decides as the first and builds the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .ratios import Speedup, speedup
from .workloads import Workload


def cache_directory() -> Path:
    """GRAPHWRIGHT_CACHE, or graphwright's folder where this system keeps caches."""
    if told := os.environ.get("GRAPHWRIGHT_CACHE"):
        return Path(told)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphwright"
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            / "graphwright"
            / "Cache"
        )
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphwright"


@dataclass(frozen=True)
class Rounds:
    """Median seconds of one call in each round, of the program before and of the one after."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def speedup(self) -> Speedup:
        return speedup(self.before, self.after)

    @property
    def ms(self) -> float:
        """Of one call of the program after, the median of the rounds."""
        return 1e3 * float(np.median(self.after))


class Decisions:
    """One small file a ratio, named by the hash of everything that it depends on.

    A file that is missing, damaged or can't be written is as good as none: the ratio is measured.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Mapping[str, Any]) -> Rounds | None:
        """What was measured under `key`."""
        try:
            found = json.loads(self._path(key).read_bytes())
            before, after = (tuple(map(float, found[name])) for name in ("before", "after"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        whole = len(before) == len(after) > 0
        return Rounds(before, after) if whole and all(0 < s < math.inf for s in before + after) else None

    def put(self, key: Mapping[str, Any], rounds: Rounds) -> None:
        """Record what was measured, whole or not at all."""
        path = self._path(key)
        partial = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(asdict(rounds)))
            partial.replace(path)

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def digest(workload: Workload) -> str:
    """Hex digest of a workload's arrays: names say too little about lengths and padding."""
    found = hashlib.sha256()
    for name, array in sorted(workload.feed.items()):
        found.update(f"{name} {array.dtype} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()

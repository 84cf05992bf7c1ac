"""Measurements kept between runs, so that a second run decides as the first and builds the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .ratios import Speedup, speedup
from .workloads import Workload


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

    def put(self, key: Mapping[str, Any], rounds: Rounds) -> Rounds:
        """Record what was measured, whole or not at all.

        Returns:
            What is on record: of two runs at once the first one's, so that both build the same.
        """
        path = self._path(key)
        partial = path.with_suffix(f".{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(asdict(rounds)))
                try:
                    os.link(partial, path)
                except OSError:
                    if (first := self.get(key)) is not None:
                        return first
                    partial.replace(path)  # what is there is damaged, or there are no links here
            finally:
                partial.unlink(missing_ok=True)
        return rounds

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

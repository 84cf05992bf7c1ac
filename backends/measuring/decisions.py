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

from .ratios import ENOUGH, Speedup, speedup
from .workloads import Workload

FAR = 1.1  # what every round's ratio is above, or below its inverse: noise doesn't make that alone


@dataclass(frozen=True)
class Rounds:
    """Median seconds of one call in each round, of the program before and of the one after; and in which
    rounds others' work kept one of them from its cores."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    disturbed: tuple[bool, ...]

    @property
    def speedup(self) -> Speedup:
        return speedup(self.before, self.after, self.disturbed)

    @property
    def edges(self) -> tuple[float, float]:
        """The lowest and highest ratio of a quiet round; of any where none was."""
        rounds = list(zip(self.before, self.after, self.disturbed, strict=True))
        quiet = [before / after for before, after, disturbed in rounds if not disturbed]
        ratios = quiet or [before / after for before, after, _ in rounds]
        return min(ratios), max(ratios)

    @property
    def doubtful(self) -> bool:
        """Whether too few rounds were quiet to decide by, and they don't all say the same by far."""
        quiet = sum(not each for each in self.disturbed)
        return quiet < min(ENOUGH, len(self.disturbed)) and not self.far

    @property
    def far(self) -> bool:
        """Whether all rounds, disturbed or not, say the same by so much that noise doesn't make it."""
        ratios = [before / after for before, after in zip(self.before, self.after, strict=True)]
        return min(ratios) > FAR or max(ratios) < 1 / FAR

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
            disturbed = tuple(map(bool, found["disturbed"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        whole = len(before) == len(after) == len(disturbed) > 0
        sound = whole and all(0 < s < math.inf for s in before + after)
        return Rounds(before, after, disturbed) if sound else None

    def put(self, key: Mapping[str, Any], rounds: Rounds) -> Rounds:
        """Record what was measured, whole or not at all.

        Returns:
            What is on record: of two runs at once the first one's, so that both build the same; unless that
            is in doubt and this is not.
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
                    if (first := self.get(key)) is not None and (rounds.doubtful or not first.doubtful):
                        return first
                    partial.replace(path)  # what is there is damaged or in doubt, or there are no links here
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

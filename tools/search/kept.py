"""What a search leaves in its folder: bundles of the front's members, and front.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import ConfigError, did_you_mean
from .front import Front
from .goal import Goal
from .tried import Tried

FORMAT = 1  # what reads front.json
RECORD = "front.json"


def best_of(goal: Goal, best: str | None) -> str | None:
    """The key of the objective that is named by its metric or its key.

    Raises:
        ConfigError: it is no objective.
    """
    keys = [one.key for one in goal.minimise]
    found = [one.key for one in goal.minimise if best in (one.key, one.metric)]
    if best is not None and not found:
        raise ConfigError(f"best: {best!r} is not minimised{did_you_mean(best, keys)}")
    return found[0] if found else None


class Kept:
    """A search's folder.

    Args:
        facts: what front.json says beside trials and front (docs/design.md).
        best: the objective of which only the best member's bundle is kept; None keeps all members'.

    Raises:
        ConfigError: best is no objective.
    """

    def __init__(self, folder: Path, goal: Goal, facts: Mapping[str, Any], best: str | None = None) -> None:
        self.folder, self._goal, self._facts = folder, goal, dict(facts)
        self._best = best_of(goal, best)

    def wanted(self, found: Front) -> tuple[int, ...]:
        """The trials whose bundles are to be there."""
        if self._best and found.members:
            return (found.best[self._best],)
        return found.kept

    def path(self, number: int) -> Path:
        return self.folder / "members" / f"{number:04d}"

    def save(self, number: int, save: Callable[[Path], None]) -> None:
        """Write a bundle, unless it is there."""
        if not self.path(number).exists():
            save(self.path(number))

    def update(self, known: Sequence[Tried], found: Front, pending: Collection[int] = ()) -> None:
        """Remove bundles that are on the front no more, and write the record, whole or not at all.

        Args:
            pending: trials that were found and are not told, whose bundles may be wanted yet.
        """
        wanted = {*self.wanted(found), *pending}
        members = self.folder / "members"
        for path in sorted(members.iterdir()) if members.is_dir() else ():
            if path.name.isdigit() and int(path.name) not in wanted:
                shutil.rmtree(path, ignore_errors=True)
        record = self.record(known, found)
        partial = self.folder / f".{RECORD}.partial"
        partial.write_text(json.dumps(record, indent=1))
        os.replace(partial, self.folder / RECORD)

    def record(self, known: Sequence[Tried], found: Front) -> dict[str, Any]:
        """The content of front.json."""
        nearest = found.nearest
        return {
            "format": FORMAT,
            **self._facts,
            "goal": self._goal.to_json(),
            "trials": [one.to_json() for one in known],
            "front": [one.number for one in found.members],
            "best": found.best,
            "nearest": nearest.number if nearest else None,
            "distance": found.distance,
            "bundles": {
                str(number): str(self.path(number).relative_to(self.folder))
                for number in self.wanted(found)
                if self.path(number).is_dir()
            },
            "seconds": round(sum(one.seconds for one in known), 1),
            "met": bool(found.members),
        }

"""What a search is asked for, and what it gives back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.errors import ConfigError, short
from .explore import Limits
from .front import Front
from .goal import Goal
from .sampler import Kind
from .tried import Tried

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True)
class Order:
    """What a search is asked for, beside the run's settings. budget: as in 2h, 90m or 1h30m, of all trials
    together; None is no limit, where trials are. space: a file that narrows the space. storage: a database's
    URL. best: the objective of which only the best bundle is kept."""

    goal: str
    minimise: str | None = None
    budget: str | None = None
    trials: int | None = None
    space: str | None = None
    sampler: Kind = "tpe"
    storage: str | None = None
    resume: bool = False
    best: str | None = None

    def limits(self) -> Limits:
        """Raises ConfigError for a budget that is none."""
        if self.budget is None:
            return Limits(None if self.trials else 3600.0, self.trials)
        found = _TIME.fullmatch(self.budget.strip())
        parts = [float(part or 0) for part in found.groups()] if found else [0.0] * 3
        seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
        if not seconds:
            raise ConfigError(f"budget: {short(self.budget)} is no time: write one as 2h, 90m or 1h30m")
        return Limits(seconds, self.trials)


@dataclass(frozen=True)
class Searched:
    """The result of a search. record: the content of front.json. front: its members."""

    folder: Path
    goal: Goal
    front: Front
    trials: Sequence[Tried]
    record: Mapping[str, Any]

    @property
    def status(self) -> int:
        """The exit status: 0, 3 where nothing meets the goal."""
        return 0 if self.front.members else 3

    @property
    def failures(self) -> list[str]:
        """A sentence where nothing meets the goal."""
        if self.front.members:
            return []
        nearest = self.front.nearest
        if nearest is None:
            return [f"nothing meets the goal: none of {len(self.trials)} trials could be made and measured"]
        values = ", ".join(
            f"{limit.of.key} is {nearest.values[limit.of.key]:.4g}, {excess:.0%} beyond {limit.most:g}"
            for limit in self.goal.limits
            if (excess := limit.excess(nearest.values)) > 0
        )
        return [
            f"nothing meets the goal; trial {nearest.number} is the nearest, and its bundle is saved: "
            f"{values}"
        ]

    def to_json(self) -> dict[str, Any]:
        return dict(self.record)

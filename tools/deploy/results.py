"""What came of a deployment's builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .changes import Change
from .facts import Facts

State = Literal["built", "unchanged", "from the lock", "failed"]


@dataclass(frozen=True)
class Result:
    """One build.

    bundle: where it is. error: why there is none. problems: of the run, a sentence each; status: its own.
    unmet: budgets that it does not keep. changes: since the lock that it was held against; None where that
    has no such build.
    """

    name: str
    model: str
    bundle: Path
    state: State
    facts: Facts | None = None
    error: str = ""
    problems: tuple[str, ...] = ()
    status: int = 0
    unmet: tuple[str, ...] = ()
    changes: tuple[Change, ...] | None = None
    seconds: float = 0.0

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(each for each in self.changes or () if each.regression)

    def to_json(self) -> dict[str, Any]:
        changes = [{"what": each.what, "told": each.told} for each in self.changes or ()]
        return {
            "name": self.name,
            "bundle": str(self.bundle),
            "state": self.state,
            "error": self.error or None,
            "problems": list(self.problems),
            "unmet": list(self.unmet),
            "changes": None if self.changes is None else changes,
            "facts": self.facts.to_json() if self.facts else None,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Results:
    """Of every build that was asked for. gate: whether regressions fail."""

    results: tuple[Result, ...]
    gate: bool = False

    @property
    def status(self) -> int:
        """0; 1 where a build failed, or a pass of one did; 3 where a budget or goal is not met, nothing could
        be verified, or a gated build has become worse."""
        if any(each.error or each.status == 1 for each in self.results):
            return 1
        return 3 if any(self.faults(each) for each in self.results) else 0

    def faults(self, result: Result) -> list[str]:
        """Everything that keeps the status from being 0, a sentence each."""
        regressions = result.regressions if self.gate else ()
        return [
            *([result.error] if result.error else []),
            *(result.problems if result.status else ()),
            *result.unmet,
            *(f"{each.what}: {each.told}" for each in regressions),
        ]

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "builds": [each.to_json() for each in self.results]}

"""What is on record of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["complete", "pruned", "refused", "same", "running"]
Choice = str | int | float


@dataclass(frozen=True)
class Tried:
    """state: complete, measured and scored; pruned, hopeless by what was cheaper to know; refused, a pass or
    a runtime can't make it; same, the pipeline of an earlier trial, whose values it has; running, not yet
    told. choices: by dimension of the space. pipeline: as text, with the runtime that it is for.
    values: by metric, "latency@1x128" where it is one of calls; what was known where it was not completed.
    why: it was pruned or refused, in a sentence. seconds: that it took, its bundle too. same_as: the earlier
    trial's number.
    """

    number: int
    state: State
    choices: Mapping[str, Choice]
    pipeline: str = ""
    runtime: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    seconds: float = 0.0
    same_as: int | None = None

    @property
    def valued(self) -> bool:
        """Whether its values are those of a bundle."""
        return self.state == "complete"

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "state": self.state,
            "pipeline": self.pipeline,
            "runtime": self.runtime,
            "choices": dict(self.choices),
            "values": dict(self.values),
            "why": self.why or None,
            "seconds": round(self.seconds, 3),
            "same_as": self.same_as,
        }


def tried_from(stored: Mapping[str, Any]) -> Tried:
    """As `to_json` gave it."""
    return Tried(**{**stored, "why": stored["why"] or ""})

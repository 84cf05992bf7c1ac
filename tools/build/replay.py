"""What a run decided by measurement, for another that must not measure to decide alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...backends.measuring.workloads import Workload
from ...ir.errors import MeasureError
from ...ir.program import Program
from ...passes.manager.contract import Ratio


def asked(before: Program, after: Program, workload: str, processes: int = 1) -> str:
    """What a ratio is kept under: both programs, by content, and how they were timed."""
    return f"{before.fingerprint()} {after.fingerprint()} {workload} {processes}"


@dataclass(frozen=True)
class Replay:
    """ratios: every one that passes were given, under `asked`. chosen: what passes chose (Context.chosen)."""

    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    chosen: Mapping[Any, Any] = field(default_factory=dict)


class Replayed:
    """A Measurer that has no clock: it gives what was measured then, or refuses."""

    def __init__(self, workloads: list[Workload], ratios: Mapping[str, Ratio]) -> None:
        self.workloads, self._ratios = workloads, ratios
        self.ms: Mapping[str, float] = {}
        self.conditions = None

    def __call__(
        self,
        before: Program,
        after: Program,
        only: str | None = None,
        processes: int = 1,
        whether: bool = False,
    ) -> Mapping[str, Ratio]:
        """Ratios by workload name. Raises MeasureError: one was not measured then, of programs like these."""
        names = [only] if only else [workload.name for workload in self.workloads]
        try:
            return {name: self._ratios[asked(before, after, name, processes)] for name in names}
        except KeyError:
            raise MeasureError(
                "a graph comes out differently here than on the machine that measured, so what was measured "
                "of it then says nothing: build there, or without --frozen"
            ) from None

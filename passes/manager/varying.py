"""What a search may try of a pass's options: data that stands beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class Between:
    """Numbers from low to high, both included; whole ones where both are whole. step: apart from low;
    0 is any. log: evenly by their logarithms. rising: more costs more and can only do better, so a search
    begins at low and goes on from there (tools/search/rising)."""

    low: int | float
    high: int | float
    step: int | float = 0
    log: bool = False
    rising: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: object) -> bool:
        """Whether it is one of them."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and math.isclose(steps, round(steps), abs_tol=1e-6)


Range: TypeAlias = tuple[Value, ...] | Between


@dataclass(frozen=True)
class Each:
    """An option that is a tuple: a range for each of its entries."""

    ranges: tuple[Range, ...]


Varying: TypeAlias = Mapping[str, Range | Each]  # by option

"""Pass, its contract, and what a pass is given and gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..ir.program import Dialect, Program

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Exact:
    """The same function up to float rounding: outputs differ by at most `tolerance` (absolute, on outputs
    scaled by max(1, |reference|))."""

    tolerance: float = 1e-4


@dataclass(frozen=True)
class Bounded:
    """Outputs may move, but `metric` (over probe inputs) stays at or above `limit`.

    metric: "cosine" (smallest cosine between reference and output rows).
    """

    metric: str
    limit: float


@dataclass(frozen=True)
class Lossy:
    """No promise: judged by the user's own metric."""


Effect = Exact | Bounded | Lossy


@dataclass(frozen=True)
class Ratio:
    """Speed-up of `after` over `before` (above 1 is faster): median of per-round ratios, with quartiles."""

    median: float
    low: float
    high: float


@dataclass
class Context:
    """What a run hands to each pass.

    target: the hardware (backends.target.Target). threads: intra-op threads to build and measure with.
    calibration: feeds of real data, for passes that say requires = ("calibration",).
    score: quality of a program on the user's metric, higher is better, for requires = ("score",).
    measure: times two programs in turn, ratio per workload name; None when nothing may be timed.
    progress: called with (description, done, total).
    """

    target: Any = None
    threads: int = 2
    seed: int = 0
    calibration: Sequence[Feed] = ()
    score: Callable[[Program], float] | None = None
    measure: Callable[[Program, Program], Mapping[str, Ratio]] | None = None
    progress: Callable[[str, int, int], None] = lambda description, done, total: None


@dataclass(frozen=True)
class Result:
    """modified must be honest. statistics are declared numbers, printed beside time and size.
    notes: one sentence each for what was not rewritten and why."""

    program: Program
    modified: bool
    statistics: Mapping[str, int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Pass(ABC):
    """A rewrite. Subclasses are frozen dataclasses whose fields are their options.

    run receives a clone: it may edit `program.graph` in place and return it.
    """

    name: ClassVar[str]
    source: ClassVar[Dialect | None]  # None: runs on both dialects
    target: ClassVar[Dialect | None]  # None: the dialect it was given
    effect: ClassVar[Effect]
    requires: ClassVar[tuple[str, ...]] = ()
    gated: ClassVar[bool] = False  # kept only where it measures no slower

    @abstractmethod
    def run(self, program: Program, context: Context) -> Result: ...

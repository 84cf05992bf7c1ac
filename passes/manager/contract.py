"""Pass, its contract, and what a pass is given and gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ...ir.errors import GraphwrightError
from ...ir.program import Dialect, Program
from .varying import Varying

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Exact:
    """The same function up to float rounding: outputs differ by at most `tolerance` (absolute, on outputs
    scaled by max(1, |reference|)).

    Where that is more, a program is held to four times what its own rounding moves outputs by, never to more
    than a tenth of what doubling the output would be (passes/manager/verify.py). In float16 or bfloat16 that
    is the distance to the same graph in float32; in float32, to the same graph with other last bits in its
    weights.

    where: "mask" leaves out the (batch, position) places whose attention mask is 0, for a pass that promises
    nothing about padding.
    """

    tolerance: float = 1e-4
    where: Literal["everywhere", "mask"] = "everywhere"


@dataclass(frozen=True)
class Bounded:
    """Outputs may move, but `metric` (over probe inputs) stays at or above `limit`.

    metric: "cosine" (smallest cosine between reference and output rows).
    where: as in `Exact`.
    """

    metric: Literal["cosine"]
    limit: float
    where: Literal["everywhere", "mask"] = "everywhere"


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


class Hardware(Protocol):
    """What passes may ask of the machine that a program is for (it is a backends.target.Target)."""

    @property
    def name(self) -> str: ...

    @property
    def arch(self) -> str:
        """As the kernel spells it: "x86_64", "aarch64"."""

    @property
    def saturates(self) -> bool:
        """Whether products of unsigned by signed 8-bit integers are added in 16 bits."""

    @property
    def bfloat16(self) -> bool:
        """Whether its vectors multiply bfloat16 with sums in float32."""


@dataclass
class Context:
    """What a run hands to each pass.

    target: the hardware. runtime: what the program is for, "onnxruntime" or "tvm"; empty where that is open.
    threads: intra-op threads to build and measure with.
    calibration: feeds of real data, for passes that require "calibration". Beside inputs they may hold what
        goes with their rows: labels, and the texts that they were made from (passes/common/texts.py).
    training: feeds of real data to train on, as many as there are; where it is empty, calibration serves.
    cache: a folder where work may be kept between runs, such as a training's checkpoints; None keeps none.
    original: the program as captured, of the fx dialect, for passes that require "original"; the manager
        fills it in. It may read texts by another tokenizer than the program, and then takes no feed of it.
    score: quality of a program on the user's metric, higher is better, for passes that require "score".
    measure: times two programs in turn, ratio per workload name (`only` names the one to time, `processes`
        how many of each program to spread it over); None when nothing may be timed.
    gate: the same at every workload where it only matters whether the second is slower; None asks `measure`.
    gates: whether gated passes are timed and kept only where they measure no slower, or else are trusted.
    conditions: JSON-able, what a measurement holds for beside the programs: target, threads, runtime,
        workloads. None: what was measured may not be kept.
    chosen: what passes chose by measurement, for the other graphs of one bundle to choose alike: a text's
        vector must not depend on which of them answers. None remembers nothing.
    progress: called with (description, done, total).
    allow: a pass asks it, naming the rewrite, right before each rewrite, and skips the rewrite on False.
        Bisection answers True to the first n only; every prefix must leave a valid graph.
    """

    target: Hardware | None = None
    runtime: str = ""
    threads: int = 2
    seed: int = 0
    calibration: Sequence[Feed] = ()
    training: Sequence[Feed] = ()
    cache: Path | None = None
    original: Program | None = None
    score: Callable[[Program], float] | None = None
    measure: Callable[..., Mapping[str, Ratio]] | None = None
    gate: Callable[[Program, Program], Mapping[str, Ratio]] | None = None
    gates: bool = True
    conditions: Mapping[str, Any] | None = None
    chosen: dict[Any, Any] | None = None
    progress: Callable[[str, int, int], None] = lambda description, done, total: None
    allow: Callable[[str], bool] = lambda rewrite: True


@dataclass(frozen=True)
class Result:
    """modified must be honest. statistics are declared numbers, printed beside time and size.
    notes: one sentence each for what was not rewritten and why.
    context: what the passes after get, where ids no longer mean what they did.
    missed: what was asked for and could not be reached, in a sentence; the program is the best that could.
    ratios: measured speed-up per workload, of a pass that decides by the clock itself.
    curves: of what was trained, points (step, value) of each measure by its name: "loss", "held-out loss"."""

    program: Program
    modified: bool
    statistics: Mapping[str, int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    context: Context | None = None
    missed: str = ""
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


class Pass(ABC):
    """A rewrite. Subclasses are frozen dataclasses whose fields are their options.

    run receives a clone: it may edit `program.graph` in place and return it.
    """

    name: ClassVar[str]
    source: ClassVar[Dialect | None]  # None: runs on both dialects
    target: ClassVar[Dialect | None]  # None: the dialect it was given
    effect: ClassVar[Effect]
    in_bodies: ClassVar[bool] = True
    """Of a pass on ONNX programs: whether it may rewrite the body of an If or a Loop as a program of its own
    (bodies.py). False where it reads what inputs are for, or weighs all layers against each other."""

    widens: ClassVar[bool] = False
    """Whether programs take calls afterwards that they refused before. A run measures and judges what comes
    after it beside what it gives."""

    varies: ClassVar[Varying] = {}
    """What a search may try of its options. A pass that no search tries has none."""

    @classmethod
    def varying(cls, program: Program) -> Varying:
        """`varies` for a program; none where there is nothing in it that the pass works on."""
        return cls.varies

    def requires(self) -> tuple[str, ...]:
        """Fields of the context that must not be empty."""
        return ()

    def gated(self) -> bool:
        """Whether it is kept only where it measures no slower."""
        return False

    def traces(self) -> bool:
        """Whether it lowers programs, which takes PyTorch modes of its own."""
        return self.target == "onnx"

    @abstractmethod
    def run(self, program: Program, context: Context) -> Result: ...

    def pays(self, program: Program, feed: Feed) -> bool:
        """Whether calls like this one can gain from the pass at all. Those that can't do without it: a
        later pass may make everything else faster, and what this one costs count for more."""
        return True

    def worthwhile(self, program: Program, feeds: Sequence[Feed]) -> bool:
        """Whether calls like these can gain from the pass on this program, told at less cost than by running
        it: asked before a preset begins with it, for which a model has to be lowered once more."""
        return any(self.pays(program, feed) for feed in feeds)


@dataclass
class Step:
    """What one pass did in a run.

    text: the pass as pipeline text. seconds: the pass itself; check_seconds: verification.
    bytes_before, bytes_after: weights. ratios: measured speed-up per workload, where the clock decides.
    missed: as its result says. error: why it was rolled back (it broke its contract) or refused (what it was
    given, the data or the program, is nothing that it can work on), in one sentence. A pass is not run where
    the one that was to lower the program for it left it as it was. unverified: which outputs say nothing on
    probe inputs, so that its promise was not checked there; a sentence, empty where all was. rewrites: by the
    names that it asked `Context.allow` for, in order; none where it was undone. curves: as its result says.
    """

    text: str
    effect: Effect
    status: Literal["applied", "no change", "rolled back", "refused", "slower", "not run"] = "no change"
    seconds: float = 0.0
    check_seconds: float = 0.0
    bytes_before: int = 0
    bytes_after: int = 0
    statistics: Mapping[str, int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    missed: str = ""
    error: GraphwrightError | None = None
    unverified: str = ""
    rewrites: tuple[str, ...] = ()
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """What the pass counted, in a line."""
        return ", ".join(f"{name} {value}" for name, value in self.statistics.items())

    @property
    def failure(self) -> str:
        """What went wrong, in a sentence; empty where nothing did."""
        if self.error is None:
            return ""
        if self.status == "refused":
            return f"'{self.text.partition('{')[0]}' was left out: {self.error}"
        return f"{self.error}; it was rolled back"


@dataclass
class Run:
    """A pipeline's outcome: the last program that kept every contract, and what each pass did.

    ok: no pass was rolled back or refused, and the pipeline ran to its end.
    """

    program: Program
    steps: list[Step] = field(default_factory=list)

    @property
    def applied(self) -> tuple[int, ...]:
        """Numbers of the steps that are in the program."""
        return tuple(number for number, step in enumerate(self.steps) if step.status == "applied")

    @property
    def ok(self) -> bool:
        return all(step.error is None for step in self.steps)

    def program_or_raise(self) -> Program:
        """The program; raises the first error of a step, where there is one."""
        for step in self.steps:
            if step.error is not None:
                raise step.error
        return self.program

"""How much int8 at each site moves the outputs, and which sites must do with less of it.

Each site is quantized alone, with the kernels that will run, and the loss 1 - cos(float, quantized) is
measured at the model's outputs. Rounding errors of different sites are nearly independent, so their losses
nearly add up (Lin et al., 2016, arXiv:1511.06393). The site that loses most for what the next rung costs in
time climbs its ladder until the sum is within the budget; then the whole is measured, and climbing goes on if
the sum was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.agreement import cosine
from ....ir.errors import DataError
from ....ir.execute import execute
from ....ir.inputs.probe import probes
from ....ir.program import Program
from ...common.outputs import rows
from ...manager.contract import Context, Feed
from .rewrite import Rung, Static, write
from .sites import find

TOKENS = 1024  # of input are enough to rank sites, and cost a big model no minutes
# What a rung adds to the time of an int8 product, in such products; medians over the sizes of MiniLM's layers
# on Zen 5 with VNNI, 128 tokens.
PRICE: dict[Rung, float] = {"token": 0.25, "float": 2.4}
TENSOR: tuple[Rung, ...] = ("tensor", "token", "float")
TOKEN: tuple[Rung, ...] = ("token", "float")
STATIC: tuple[Rung, ...] = ("static", "token", "float")
BFLOAT16: tuple[Rung, ...] = ("bfloat16", "float")  # a narrower float instead of int8
Outputs = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Placement:
    """rungs: one for each site. loss: 1 - cosine with all of them in place; None if it was not measured.
    alone: what each site loses alone on its first rung, empty where the whole was within the budget."""

    rungs: tuple[Rung, ...]
    loss: float | None = None
    alone: tuple[float, ...] = ()

    def costly(self, names: Sequence[str], low: str) -> list[str]:
        """A sentence for each site that stays in float. names: of all sites. low: the type that costs it."""
        return [
            f"{name}: stays in float, {low} there alone costs a cosine of {alone:.2g}"
            for name, rung, alone in zip(names, self.rungs, self.alone, strict=bool(self.alone))
            if rung == "float" and alone
        ]


def choose(
    per_token: Sequence[bool],
    loss: Callable[[Sequence[Rung]], float],
    budget: float,
    ladder: tuple[Rung, ...] = TENSOR,
) -> Placement:
    """The rung of every site, as low as the budget lets it be. Deterministic if `loss` is.

    Args:
        per_token: of each site, whether its rows can be scaled apart.
        loss: 1 - cosine with the given rungs.
        budget: the largest loss allowed.
        ladder: from the cheapest rung to "float".
    """
    rungs: list[Rung] = [ladder[0]] * len(per_token)
    whole = loss(rungs)
    if whole <= budget:
        return Placement(tuple(rungs), whole)

    def alone(number: int) -> float:
        mixed: list[Rung] = ["float"] * len(per_token)
        mixed[number] = rungs[number]
        return max(0.0, loss(mixed))

    def above(number: int) -> Rung:
        higher = ladder[ladder.index(rungs[number]) + 1 :]
        return next(rung for rung in higher if rung != "token" or per_token[number])

    losses = [alone(number) for number in range(len(per_token))]
    first = tuple(losses)
    while whole > budget and any(rung != "float" for rung in rungs):
        # What the sum missed is taken to be missed in the same proportion from here on.
        share = whole / sum(losses) if sum(losses) > 0 else np.inf
        climbed = False
        while not climbed or share * sum(losses) > budget:
            candidates = [n for n, rung in enumerate(rungs) if rung != "float"]
            if not candidates:
                break
            worst = max(candidates, key=lambda n: (losses[n] / PRICE[above(n)], -n))
            rungs[worst] = above(worst)
            losses[worst] = 0.0 if rungs[worst] == "float" else alone(worst)
            climbed = True
        whole = loss(rungs)
    return Placement(tuple(rungs), whole, first)


class Loss:
    """1 - mean cosine between the rows of a program's outputs and of the same program with sites in int8.

    The worst output counts. Rows are along the last axis; padding is left out.

    Args:
        feeds: to measure on; None takes the calibration feeds where the context has them, else probe inputs.
    """

    def __init__(
        self,
        program: Program,
        limit: int,
        sources: frozenset[str],
        context: Context,
        static: Static | None = None,
        feeds: Sequence[Feed] | None = None,
    ) -> None:
        self.program, self.limit, self.sources, self.context = program, limit, sources, context
        self.static = static
        self.feeds = some(feeds or context.calibration or probes(program, context.seed))
        self.reference = execute(program, self.feeds, context.threads)

    @property
    def possible(self) -> bool:
        """Whether there is a row to compare: the program in float gives a finite one."""
        return comparable(self.program, self.feeds, self.reference)

    def __call__(self, rungs: Sequence[Rung]) -> float:
        variant = self.program.clone()
        write(variant, find(variant, self.limit)[0], rungs, self.limit, self.sources, self.static)
        found = execute(variant, self.feeds, self.context.threads)
        return distance(self.program, self.feeds, self.reference, found)


def comparable(program: Program, feeds: Sequence[Feed], expected: Outputs) -> bool:
    """Whether any output has a finite row at a real token."""
    return any(
        np.isfinite(_rows(program, feed, outputs[name])).all(axis=-1).any()
        for feed, outputs in zip(feeds, expected, strict=True)
        for name in program.outputs
    )


def distance(program: Program, feeds: Sequence[Feed], expected: Outputs, found: Outputs) -> float:
    """1 - mean cosine between the rows of outputs, that of the worst output; padding is left out, and so are
    rows that are not finite in `expected`.

    Args:
        expected, found: outputs by name for each feed.

    Raises:
        DataError: there is no row to compare.
    """
    losses = []
    for name in program.outputs:
        cosines = [
            _cosines(*(_rows(program, feed, outputs[name]) for outputs in pair))
            for feed, *pair in zip(feeds, expected, found, strict=True)
        ]
        joined = np.concatenate(cosines)
        if joined.size:
            losses.append(float(1 - joined.mean()))
    if not losses:
        raise DataError("no output has a finite row, so nothing tells how far outputs moved")
    return max(losses)


def some(feeds: Sequence[Feed]) -> list[Feed]:
    """The first feeds, up to about `TOKENS` elements of their largest integer input; one at least."""
    chosen: list[Feed] = []
    total = 0
    for feed in feeds:
        if total >= TOKENS:
            break
        chosen.append(feed)
        total += max((array.size for array in feed.values() if array.dtype.kind in "iu"), default=1)
    return chosen


def _rows(program: Program, feed: Feed, output: np.ndarray) -> np.ndarray:
    """(rows, width) of an output that has numbers; none of another."""
    if output.dtype.kind != "f":
        return np.zeros((0, 1))
    return rows(program, feed, output).astype(np.float64)


def _cosines(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Of each row that is finite in `expected`; a row of zeros agrees with another one alone, and one that
    became NaN or infinite with none."""
    finite = np.isfinite(expected).all(axis=-1)
    expected, actual = expected[finite], actual[finite]
    actual = np.where(np.isfinite(actual).all(axis=-1, keepdims=True), actual, 0)
    return cosine(expected, actual)

"""How to train, and what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Plan:
    """How to train.

    steps: updates. rate: AdamW's, reached after the share `warmup` of the steps and falling to 0 by a line.
    decay: of matrices and tables alone. clip: largest norm of the gradient. accumulate: batches to a step, in
    each process.
    minutes: the run ends by then, its rate fallen to 0; how many steps that takes depends on the machine, so
    such a run is not repeatable where it binds. 0: all the steps.
    patience: evaluations on held-out batches, 20 in a long run, without a gain until it stops, and the best
    weights are taken; 0: it trains to the end and takes the last.
    precision: bfloat16 computes products and attention in it (autocast) and keeps float32 weights.
    """

    steps: int
    rate: float
    warmup: float = 0.06
    decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    minutes: float = 0.0
    patience: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


@dataclass
class Log:
    """What happened. losses: one a step. held_out: (step, loss) of each evaluation. seconds: over all runs.
    resumed: the step that this run took it up at. notes: sentences for the user."""

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False
    resumed: int = 0
    notes: list[str] = field(default_factory=list)

    def curves(self, most: int = 200) -> dict[str, list[tuple[int, float]]]:
        """Losses to look at, (step, loss): means of neighbouring steps, at most `most` of them, each at its
        last step; and every evaluation."""
        count = max(1, -(-len(self.losses) // most))
        pieces = [self.losses[start : start + count] for start in range(0, len(self.losses), count)]
        means = [sum(piece) / len(piece) for piece in pieces]
        ends = [min((number + 1) * count, len(self.losses)) for number in range(len(pieces))]
        found = {"loss": list(zip(ends, means, strict=True))}
        return found | ({"held-out loss": list(self.held_out)} if self.held_out else {})

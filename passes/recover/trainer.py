"""The trainer: AdamW on named parameters, on whatever loss; goes on after a kill as if nothing had been.

Batches, their order, and PyTorch's random numbers follow from the seed and the number of the batch alone, so
that a run which was stopped and taken up gives the losses of one that was not, and that two processes with
one batch each give those of one process that accumulates over two, up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from ...ir.errors import DataError
from .checkpoints import Checkpoints
from .workers import Workers, join

Loss = Callable[[Any, float], torch.Tensor]
Progress = Callable[[str, int, int], None]
RECENT = 20  # steps whose mean loss is shown
EVALUATIONS = 20  # in a run


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


def train(
    parameters: Mapping[str, torch.nn.Parameter],
    loss: Loss,
    batches: Sequence[Any],
    plan: Plan,
    *,
    held_out: Sequence[Any] = (),
    rates: Mapping[str, float] | None = None,
    kept: Checkpoints | None = None,
    progress: Progress = lambda description, done, total: None,
    title: str = "training",
) -> Log:
    """Train parameters in place.

    Args:
        parameters: what learns, by a name of its own; the numbers they have are the start.
        loss: (batch, share of the run that is done) -> a scalar with a gradient. Its random numbers are
            PyTorch's global ones.
        batches: anything that `loss` takes; each is taken once an epoch, in random order.
        held_out: batches that are evaluated and not trained on.
        rates: factors of the rate, by name; 1 where none is given.
        kept: where the run is kept, and taken up from.
        progress: told of every step.

    Raises:
        DataError: there are no batches, or the loss became infinite or NaN.
        CheckpointError: as `Checkpoints.load` and `alone`.
    """
    if not batches:
        raise DataError("there is nothing to train on: give it real inputs (--calibrate FILE)")
    team = join()
    mine = kept if team.rank == 0 else None
    with mine.alone() if mine else nullcontext(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        run = _Run(dict(parameters), plan, rates or {}, team, mine)
        run.resume()
        if not run.log.finished:
            _loop(run, loss, batches, held_out, progress, title)
    return run.log


def _loop(
    run: _Run, loss: Loss, batches: Sequence[Any], held_out: Sequence[Any], progress: Progress, title: str
) -> None:
    plan, team, log = run.plan, run.team, run.log
    every = max(1, plan.steps // EVALUATIONS, 2 * len(held_out))  # training is what takes the time
    began, first = time.monotonic() - log.seconds, None
    for step in range(len(log.losses), plan.steps):
        log.seconds = time.monotonic() - began
        spent = log.seconds / (60 * plan.minutes) if plan.minutes else 0.0
        share = team.told(max(step / plan.steps, spent))
        if share >= 1:
            break
        first = first or (log.seconds, share)
        run.adam.zero_grad(set_to_none=True)
        total = 0.0
        for micro in range(team.rank, plan.accumulate * team.count, team.count):
            number = step * plan.accumulate * team.count + micro
            value = _value(loss, batches[_place(number, len(batches), plan.seed)], share, number, plan)
            (value / plan.accumulate).backward()
            total += float(value.detach()) / plan.accumulate
        total = team.mean(total)
        if not np.isfinite(total):
            raise DataError(f"{title}: the loss is not finite at step {step + 1}: try a lower rate")
        run.update(share)
        log.losses.append(total)
        if held_out and ((step + 1) % every == 0 or step + 1 == plan.steps):
            run.judge(step + 1, _evaluate(loss, held_out, share, plan, team))
            if run.waited >= plan.patience > 0:
                log.notes.append(f"stopped early, after {step + 1} of {plan.steps} steps")
                break
        log.seconds = time.monotonic() - began
        run.keep()
        progress(_described(title, log, share, first), step + 1, plan.steps)
    run.finish()


class _Run:
    """The state of a run: parameters, optimiser, log, and the best weights so far."""

    def __init__(
        self,
        named: dict[str, torch.nn.Parameter],
        plan: Plan,
        rates: Mapping[str, float],
        team: Workers,
        kept: Checkpoints | None,
    ) -> None:
        self.named, self.plan, self.team, self.kept = named, plan, team, kept
        self.log, self.saved = Log(), time.monotonic()
        self.best: dict[str, torch.Tensor] = {}
        groups = [
            {
                "params": [p],
                "rate": plan.rate * rates.get(name, 1.0),
                "weight_decay": plan.decay * (p.dim() > 1),
            }
            for name, p in named.items()
        ]
        self.adam = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
        for p in named.values():
            self.adam.state[p] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    @property
    def waited(self) -> int:
        """Evaluations since the best one."""
        losses = [value for _, value in self.log.held_out]
        return len(losses) - 1 - losses.index(min(losses))

    def update(self, share: float) -> None:
        """One step of the optimiser, on the mean of everyone's gradients."""
        parameters = list(self.named.values())
        self.team.average(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, self.plan.clip)
        warmup = self.plan.warmup
        for group in self.adam.param_groups:
            factor = (share + 1 / self.plan.steps) / warmup if share < warmup else (1 - share) / (1 - warmup)
            group["lr"] = group["rate"] * min(1.0, factor)
        self.adam.step()

    def judge(self, step: int, value: float) -> None:
        self.log.held_out.append((step, value))
        if self.plan.patience and self.waited == 0:
            self.best = {name: p.detach().clone() for name, p in self.named.items()}

    def resume(self) -> None:
        """Takes up what process 0 finds; everyone starts from its numbers."""
        found = self.kept.load() if self.kept else None
        tensors, facts = found if found is not None else ({}, None)
        facts = self.team.told(facts)
        if facts is not None:
            self.log = Log(**facts)
            self.log.held_out = [(step, value) for step, value in self.log.held_out]
            self.log.resumed = len(self.log.losses)
            if self.plan.patience and self.log.held_out and not self.log.finished:
                self.best = {name: torch.empty_like(p) for name, p in self.named.items()}
        if tensors:
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    tensor.copy_(tensors[name])
        self.team.share(self._tensors().values())

    def keep(self) -> None:
        """A checkpoint, when the last one is old enough. One that cannot be written leaves the older one."""
        if self.kept is None or time.monotonic() - self.saved < self.kept.seconds:
            return
        self._save()

    def finish(self) -> None:
        if self.best:
            with torch.no_grad():
                for name, p in self.named.items():
                    p.copy_(self.best[name])
        self.log.finished = True
        if self.kept is not None:
            self._save()

    def _save(self) -> None:
        assert self.kept is not None
        try:
            self.kept.save(self._tensors(), asdict(self.log))
        except OSError as error:
            note = f"checkpoints could not be written to {self.kept.folder}: {error.strerror or error}"
            self.log.notes += [note] if note not in self.log.notes else []
        self.saved = time.monotonic()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Everything that a checkpoint holds; of a finished run the weights alone."""
        found: dict[str, torch.Tensor] = {f"weight.{name}": p for name, p in self.named.items()}
        if not self.log.finished:
            found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
            for name, p in self.named.items():
                found |= {f"{part}.{name}": tensor for part, tensor in self.adam.state[p].items()}
        return found


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16: AVX-512 BF16, AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def _place(number: int, count: int, seed: int) -> int:
    return int(_order(number // count, count, seed)[number % count])


def _value(loss: Loss, batch: Any, share: float, number: int, plan: Plan) -> torch.Tensor:
    torch.manual_seed(plan.seed * 1_000_003 + number)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
        return loss(batch, share)


def _evaluate(loss: Loss, held_out: Sequence[Any], share: float, plan: Plan, team: Workers) -> float:
    """The mean loss over held-out batches, with the same random numbers every time."""
    with torch.no_grad():
        mine = list(enumerate(held_out))[team.rank :: team.count]
        total = sum(float(_value(loss, batch, share, number, plan)) for number, batch in mine)
    return team.mean(total) * team.count / len(held_out)


def _described(title: str, log: Log, share: float, first: tuple[float, float]) -> str:
    recent = log.losses[-RECENT:]
    text = f"{title}: loss {sum(recent) / len(recent):.4f}"
    seconds, done = log.seconds - first[0], share - first[1]
    if done > 0:
        text += f", {max(1, round(seconds * (1 - share) / done / 60))} min left"
    return text

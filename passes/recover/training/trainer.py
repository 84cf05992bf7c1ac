"""The trainer: AdamW on named parameters, on whatever loss; goes on after a kill as if nothing had been.

Batches, their order, and PyTorch's random numbers follow from the seed and the number of the batch alone, so
that a run which was stopped and taken up gives the losses of one that was not, and that two processes with
one batch each give those of one process that accumulates over two, up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ....ir.errors import DataError
from .checkpoints import Checkpoints
from .plan import Log, Plan
from .state import State
from .workers import Workers, in_part, join

Loss = Callable[[Any, float], torch.Tensor]
Progress = Callable[[str, int, int], None]
RECENT = 20  # steps whose mean loss is shown
EVALUATIONS = 20  # in a run


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
        run = State(dict(parameters), plan, rates or {}, team, mine)
        run.resume()
        if not run.log.finished:
            _loop(run, loss, batches, held_out, progress, title)
    return run.log


def _loop(
    run: State, loss: Loss, batches: Sequence[Any], held_out: Sequence[Any], progress: Progress, title: str
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
            # Parts of weights are brought together by all at once: then everyone looks at every batch.
            judges = Workers() if any(map(in_part, run.named.values())) else team
            run.judge(step + 1, _evaluate(loss, held_out, share, plan, judges))
            if run.waited >= plan.patience > 0:
                log.notes.append(f"stopped early, after {step + 1} of {plan.steps} steps")
                break
        log.seconds = time.monotonic() - began
        run.keep()
        progress(_described(title, log, share, first), step + 1, plan.steps)
    run.finish()


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

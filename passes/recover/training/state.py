"""The state of a training run: what a checkpoint holds, and what a step changes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

import torch

from .checkpoints import Checkpoints
from .plan import Log, Plan
from .workers import Workers, clip


class State:
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
        clip(parameters, self.plan.clip)
        warmup = self.plan.warmup
        for group in self.adam.param_groups:
            factor = (share + 1 / self.plan.steps) / warmup if share < warmup else (1 - share) / (1 - warmup)
            group["lr"] = group["rate"] * min(1.0, factor)
        self.adam.step()
        # PyTorch's fused AdamW counts no version up, and a digest is kept by it (ir/fingerprint).
        torch.autograd.graph.increment_version(parameters)

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

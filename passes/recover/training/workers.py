"""The processes that torchrun started: each computes gradients on batches of its own, all take their mean."""

from __future__ import annotations

import atexit
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Workers:
    """This process is number `rank` of `count`; every method is called by all of them, in the same order."""

    rank: int = 0
    count: int = 1

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Everyone gets the numbers of process 0, in place."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in tensors:
                    if not in_part(tensor):
                        dist.broadcast(tensor, 0)

    def told(self, facts: Any) -> Any:
        """What process 0 says, JSON-able."""
        if self.count == 1:
            return facts
        found = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
        size = torch.tensor(len(found))
        dist.broadcast(size, 0)
        text = found if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))

    def mean(self, value: float) -> float:
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(found)
        return float(found) / self.count

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gradients become their mean; a parameter that nobody has a gradient of keeps none."""
        parameters = [p for p in parameters if not in_part(p)]  # theirs is the mean already
        if self.count == 1 or not parameters:
            return
        found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        has = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat([has, *(g.reshape(-1).float() for g in found)])
        dist.all_reduce(flat)
        has, *parts = flat.split([len(found), *(g.numel() for g in found)])
        for p, part, used in zip(parameters, parts, has.tolist(), strict=True):
            p.grad = (part / self.count).view_as(p).to(p.dtype) if used else None


def in_part(tensor: torch.Tensor) -> bool:
    """Whether this process holds a share of it alone (shards.py)."""
    return hasattr(tensor, "full_tensor")


def clip(parameters: Sequence[torch.nn.Parameter], most: float) -> None:
    """Scale gradients down to a norm of `most`, over all of them, shares that others hold included."""
    parts = [p.grad for p in parameters if p.grad is not None and in_part(p)]
    if not parts:
        torch.nn.utils.clip_grad_norm_(parameters, most)
        return
    whole = [p.grad for p in parameters if p.grad is not None and not in_part(p)]
    shares = [each.to_local() for each in parts]  # type: ignore[attr-defined]
    squares = sum((each.double().square().sum() for each in shares), torch.zeros((), dtype=torch.float64))
    dist.all_reduce(squares)
    squares = squares + sum(each.double().square().sum() for each in whole)
    factor = min(1.0, most / (float(squares) ** 0.5 + 1e-6))
    with torch.no_grad():
        for each in (*shares, *whole):
            each.mul_(factor)


def join() -> Workers:
    """The process group that torchrun describes, joined on first use; a process alone without torchrun."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return Workers()
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)
    return Workers(dist.get_rank(), dist.get_world_size())

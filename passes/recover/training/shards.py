"""Weights in parts: each process holds its share of them, of their gradients and of their moments, and what a
layer takes is brought together while the layer works (fully sharded data parallel: Zhao et al., 2023,
arXiv:2304.11277, as PyTorch's fully_shard has it)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist

from ....ir.errors import PipelineError
from .workers import Workers


@contextmanager
def in_parts(
    student: torch.nn.Module, teacher: torch.nn.Module, own: Mapping[str, torch.nn.Parameter], team: Workers
) -> Iterator[dict[str, torch.nn.Parameter]]:
    """What learns, by name, while the weights of both are parted over the processes that torchrun started.

    The parameters of `own` hold nothing meanwhile, and what was learned afterwards, whole in every process.

    Args:
        student, teacher: of pieces (recompute.pieces), each of which is brought together by itself.
        own: the student's parameters that are to learn.

    Raises:
        PipelineError: some zeros are to stay zeros, which is told of whole weights alone.
    """
    if any(p._backward_hooks for p in own.values()):
        raise PipelineError("distill keeps what was pruned to zero in whole weights alone: leave shard out")
    team.share(own.values())
    parted = _part(student)
    _part(teacher)
    learns = {name: parted.get(id(p), p) for name, p in own.items()}
    places = [(p, learns[name]) for name, p in own.items() if learns[name] is not p]
    for p, _ in places:
        p.data = torch.empty(0, dtype=p.dtype)
    yield learns
    for p, part in places:
        p.data = part.full_tensor().detach()  # type: ignore[attr-defined]
        torch.autograd.graph.increment_version(p)


def _part(module: torch.nn.Module) -> dict[int, torch.nn.Parameter]:
    """Part a module's weights in place: id of each parameter that it had -> what stands there now. Pieces
    that have a parameter in common are brought together with the whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    before = dict(module.named_parameters(remove_duplicate=False))
    pieces = [(piece, {id(p) for p in piece.parameters()}) for piece in module.children()]
    uses = Counter(number for _, numbers in pieces for number in numbers)
    for piece, numbers in pieces:
        if numbers and all(uses[number] == 1 for number in numbers):
            fully_shard(piece, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.set_force_sum_reduction_for_comms(True)  # gloo has no mean
    after = dict(module.named_parameters(remove_duplicate=False))
    return {id(p): after[name] for name, p in before.items()}

"""An operator of fx programs: rows that are sorted by group, each multiplied by its group's matrix.

PyTorch's own (aten._grouped_mm) infers shapes of bfloat16 alone, and transformers' takes no bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("graphwright::grouped_mm", mutates_args=())
def grouped_mm(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """x[i] weight[g] + bias[g] of every row i, which belongs to group g; groups may have no rows.

    Args:
        x: (rows, in), those of group 0 first. weight: (groups, in, out).
        ends: (groups,), int32 or int64: where each group's rows end. bias: (groups, out).

    Returns:
        (rows, out).
    """
    made = x.new_empty(len(x), weight.shape[2])
    for group, rows in _groups(ends):
        if bias is None:
            torch.mm(x[rows], weight[group], out=made[rows])
        else:
            torch.addmm(bias[group], x[rows], weight[group], out=made[rows])
    return made


@grouped_mm.register_fake
def _(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2])


@torch.library.custom_op("graphwright::grouped_mm_backward", mutates_args=())
def _backward(grad: Tensor, x: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    to_x, to_weight = torch.empty_like(x), torch.zeros_like(weight)
    to_bias = weight.new_zeros(weight.shape[0], weight.shape[2])
    for group, rows in _groups(ends):
        torch.mm(grad[rows], weight[group].T, out=to_x[rows])
        torch.mm(x[rows].T, grad[rows], out=to_weight[group])
        torch.sum(grad[rows], 0, out=to_bias[group])
    return to_x, to_weight, to_bias


@_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    bias = weight.new_empty(weight.shape[0], weight.shape[2])
    return torch.empty_like(x), torch.empty_like(weight), bias


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, ends, bias = inputs
    ctx.save_for_backward(x, weight, ends)
    ctx.biased = bias is not None


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None]:
    x, weight, bias = torch.ops.graphwright.grouped_mm_backward(grad.contiguous(), *ctx.saved_tensors)
    return x, weight, None, bias if ctx.biased else None


grouped_mm.register_autograd(_gradients, setup_context=_keep)


def _groups(ends: Tensor) -> Iterator[tuple[int, slice]]:
    start = 0
    for group, end in enumerate(ends.tolist()):
        if end > start:
            yield group, slice(start, end)
        start = end

"""Fake quantization in an FX graph: operators that round as integers would, with straight-through gradients.

Weights: symmetric, one step per output feature, max|w| / high anew at every call (Zafrir et al., 2019,
arXiv:1910.06188, section 2.1), times the share of that range which loses least where integers are few.
Activations: unsigned 8 bits, one step and offset for the tensor, from calibration.

Learned steps (Esser et al., 2019, arXiv:1902.08153) are parameters, "..._step": their gradient is that of
equation 3, scaled by 1 / sqrt(N high) (section 2.2), N being the weights that share a step, or the features.
PyTorch's operator differs from it within half a step beyond the range, which it takes as not clipped.

Quant-Noise (Fan et al., 2020, arXiv:2004.07320, section 4): a dropout of ones says which blocks of a weight
are quantized, so that set-mode, which turns dropout off, turns to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node

from ....ir.fx.graph import add_tensor, call, fake_tensor
from ..codes.affine import TINY, Affine
from .sites import Input, Weight

aten = torch.ops.aten
TENSOR = aten.fake_quantize_per_tensor_affine.tensor_qparams
CHANNEL = aten.fake_quantize_per_channel_affine.default
LEARNED_TENSOR = aten._fake_quantize_learnable_per_tensor_affine.default
LEARNED_CHANNEL = aten._fake_quantize_learnable_per_channel_affine.default
STEP, ZERO = "step", "zero"  # endings of what is added beside a weight

_SHARES = torch.linspace(1, 0.2, 41)  # of max|w|, tried as the end of the range


@dataclass(frozen=True)
class Grid:
    """How weights are fake-quantized.

    low, high: integers. learned: steps are parameters. noise: share of blocks quantized in training.
    block: consecutive inputs that are quantized together or not.
    """

    low: int
    high: int
    learned: bool = False
    noise: float = 1.0
    block: int = 8


def fake_quantize_weight(gm: GraphModule, weight: Weight, grid: Grid) -> None:
    """Let every use of a weight take what integers can say of it."""
    graph, reader, axis = gm.graph, weight.reader, weight.axis
    tensor, before = weight.tensor, weight.reader.next
    reader.meta.setdefault("val", fake_tensor(graph, tensor))
    share = best_share(tensor, axis, grid)
    if grid.learned:
        start = tensor.detach().abs().amax(_others(tensor, axis)) * share / grid.high
        start = torch.where(start < float(TINY), 1.0, start)
        step = _step(gm, f"{weight.name}_{STEP}", start, before)
        zero = add_tensor(gm, f"{weight.name}_{ZERO}", torch.zeros(len(start)), before)
        args = (step, zero, axis, grid.low, grid.high, (tensor.numel() / len(start) * grid.high) ** -0.5)
        fake = call(graph, LEARNED_CHANNEL, reader, *args, before=before)
    else:
        scale = _current_scale(gm, weight, share / grid.high, before)
        zeros = torch.zeros(len(share), dtype=torch.int32)
        zero = add_tensor(gm, f"{weight.name}_{ZERO}", zeros, before)
        fake = call(graph, CHANNEL, reader, scale, zero, axis, grid.low, grid.high, before=before)
    if grid.noise < 1:
        fake = _noisy(graph, weight, fake, grid, before)
    for read, user in weight.uses:
        user.replace_input_with(read, fake)


def fake_quantize_input(gm: GraphModule, site: Input, mapping: Affine, learned: bool) -> None:
    """Let products take what integers can say of what enters them.

    Args:
        mapping: per tensor.
        learned: the step is a parameter.
    """
    before = site.users[0]
    scale = torch.from_numpy(mapping.scale.reshape(1).copy())
    zero = torch.from_numpy(mapping.zero.reshape(1).copy())
    step_name, zero_name = f"{site.name}_{STEP}", f"{site.name}_{ZERO}"
    ends = (mapping.low, mapping.high)
    if learned:
        step = _step(gm, step_name, scale, before)
        offset = add_tensor(gm, zero_name, zero.float(), before)
        factor = (site.features * mapping.high) ** -0.5
        fake = call(gm.graph, LEARNED_TENSOR, site.x, step, offset, *ends, factor, before=before)
    else:
        step, offset = (add_tensor(gm, n, t, before) for n, t in ((step_name, scale), (zero_name, zero)))
        fake = call(gm.graph, TENSOR, site.x, step, offset, *ends, before=before)
    for user in site.users:
        user.replace_input_with(site.x, fake)


def best_share(tensor: torch.Tensor, axis: int, grid: Grid) -> torch.Tensor:
    """(channels,): which share of max|w| as the range's end leaves the smallest squared error.

    With 7 bits or more clipping gains nothing worth the search: 1.
    """
    weight = tensor.detach()
    channels = weight.shape[axis]
    best = torch.ones(channels)
    if grid.high >= 63:
        return best
    others = _others(weight, axis)
    largest = weight.abs().amax(others)
    zero = torch.zeros(channels, dtype=torch.int32)
    least = torch.full((channels,), torch.inf)
    for share in _SHARES:
        scale = (largest * share / grid.high).clamp_min(float(TINY))
        fake = torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, grid.low, grid.high)
        error = (fake - weight).square_().sum(others)
        best = torch.where(error < least, share, best)
        least = torch.minimum(error, least)
    return best


def _step(gm: GraphModule, name: str, start: torch.Tensor, before: Node) -> Node:
    """A step to be learned, kept positive: the optimiser may carry the parameter past zero."""
    parameter = add_tensor(gm, name, torch.nn.Parameter(start), before)
    magnitude = call(gm.graph, aten.abs.default, parameter, before=before)
    return call(gm.graph, aten.clamp_min.default, magnitude, float(TINY), before=before)


def _current_scale(gm: GraphModule, weight: Weight, share: torch.Tensor, before: Node) -> Node:
    """max|w| of each channel times its share, computed from the weight as it is at each call."""
    factor = add_tensor(gm, f"{weight.name}_share", share, before)
    scale = call(gm.graph, aten.detach.default, weight.reader, before=before)
    scale = call(gm.graph, aten.abs.default, scale, before=before)
    scale = call(gm.graph, aten.amax.default, scale, _others(weight.tensor, weight.axis), before=before)
    scale = call(gm.graph, aten.mul.Tensor, scale, factor, before=before)
    return call(gm.graph, aten.clamp_min.default, scale, float(TINY), before=before)


def _noisy(graph: Graph, weight: Weight, fake: Node, grid: Grid, before: Node) -> Node:
    """The fake-quantized weight where a random draw of blocks says so, the weight itself elsewhere."""
    inputs = 1 if weight.axis == 0 else 0
    shape = list(weight.tensor.shape)
    size = shape[inputs]
    shape[inputs] = -(-size // grid.block)
    drawn = call(graph, aten.ones.default, shape, before=before)
    drawn = call(graph, aten.dropout.default, drawn, 1 - grid.noise, False, before=before)
    if grid.block > 1:
        drawn = call(graph, aten.repeat_interleave.self_int, drawn, grid.block, inputs, before=before)
        drawn = call(graph, aten.slice.Tensor, drawn, inputs, 0, size, before=before)
    drawn = call(graph, aten.ne.Scalar, drawn, 0, before=before)
    return call(graph, aten.where.self, drawn, fake, weight.reader, before=before)


def _others(tensor: torch.Tensor, axis: int) -> list[int]:
    return [other for other in range(tensor.dim()) if other != axis]

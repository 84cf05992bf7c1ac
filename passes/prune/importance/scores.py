"""How much each unit matters: one number a unit, higher is dearer, comparable between blocks of one kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....ir.evaluated import evaluated
from ....ir.fx.graph import attribute
from ....ir.ops.coupling import Group
from ....ir.program import Program
from ...common.calibration import check
from ...common.memory import memory
from ...common.outputs import arguments, rows
from ...manager.contract import Context
from ...recover.training.own import watched
from ..surgery.units import Output, Units
from .choose import Method
from .gradients import elimination, gradients, sampled
from .masks import masked


def scores(program: Program, units: Sequence[Units], method: Method, context: Context) -> list[np.ndarray]:
    """For each block a float64 array (units,).

    magnitude: the L2 norm of all weights that go with a unit (Han et al., 2015, arXiv:1506.02626).
    taylor, fisher, fisher-block: from the gradient of a mask (gradients.py, block_fisher.py).
    activation: what a unit adds to the stream (contribution.py).
    random: uniform, by the context's seed; the control.

    Raises:
        DataError: the calibration data are empty, constant, NaN, or do not fit the program.
    """
    if method == "random":
        rng = np.random.default_rng(context.seed)
        return [rng.random(one.size) for one in units]
    if method == "magnitude":
        return [magnitude(one.groups) if one.groups else np.zeros(1) for one in units]
    check(program, context.calibration)
    if method == "activation":
        return contributions(program, units, context)
    return by_gradients(gradients(program, masked(evaluated(program), units), context), method)


def by_gradients(found: Sequence[np.ndarray], method: Method) -> list[np.ndarray]:
    """Scores from (samples, units) of mask gradients."""
    if method == "taylor":
        return [np.abs(each).mean(axis=0) for each in found]
    if method == "fisher":
        return [np.square(each).mean(axis=0) for each in found]
    return [elimination(each.T @ each / len(each)) for each in found]


def magnitude(groups: Sequence[Group]) -> np.ndarray:
    """(units,): the norm of each unit's weights; a tensor that several layers read counts once.

    Args:
        groups: that go together.
    """
    size = groups[0].size
    total = np.zeros(size)
    seen = set()
    for group in groups:
        for member in group.members:
            tensor = member.value.tensor
            if tensor is None or not tensor.is_floating_point():
                continue
            key = (memory(tensor), member.axis, member.map)
            if key not in seen:
                seen.add(key)
                numbers = member.value.const
                assert numbers is not None
                squares = np.square(numbers.astype(np.float64))
                along = squares.sum(axis=tuple(a for a in range(squares.ndim) if a != member.axis))
                total += [along[member.map.indices([unit])].sum() for unit in range(size)]
    return np.sqrt(total)


def contributions(program: Program, units: Sequence[Units], context: Context) -> list[np.ndarray]:
    """(units,) for each block: the mean over tokens of |W_u x_u|^2, as a share of its sum over the block's
    units; summed over blocks that share them.

    x_u are a unit's features and W_u the columns of the output projection that read them; for a neuron this
    is Wanda's product of norms, squared (Sun et al., 2023, arXiv:2306.11695).
    """
    nodes = {node.name: node for node in program.graph.graph.nodes}
    outputs = [(number, output) for number, one in enumerate(units) for output in one.outputs]
    module = watched(evaluated(program).graph, [nodes[output.operand] for _, output in outputs])
    batches = sampled(program, context)
    grams = [torch.zeros(())] * len(outputs)
    with torch.no_grad():
        for place, feed in enumerate(batches):
            context.progress("weighing units", place, len(batches))
            seen = module(*arguments(program, feed))[len(program.outputs) :]
            for i, ((number, output), x) in enumerate(zip(outputs, seen, strict=True)):
                parts = rows(program, feed, x.movedim(output.axis, -1))[:, units[number].places].float()
                grams[i] = grams[i] + torch.einsum("rui,ruj->uij", parts, parts)
    totals = [np.zeros(one.size) for one in units]
    for (number, output), gram in zip(outputs, grams, strict=True):
        weight = dense(program, output)[:, units[number].places]
        energy = torch.einsum("oui,uij,ouj->u", weight, gram, weight)
        totals[number] += (energy / energy.sum().clamp(min=torch.finfo(torch.float32).tiny)).double().numpy()
    return totals


def dense(program: Program, output: Output) -> torch.Tensor:
    """The weight of an output projection as (out, in), float32; of a grouped convolution with its zeros."""
    node = next(node for node in program.graph.graph.nodes if node.name == output.weight)
    weight = attribute(program.graph, str(node.target)).detach().float()
    weight = weight.flatten(1) if output.transposed else weight.T
    return weight if output.groups == 1 else torch.block_diag(*weight.chunk(output.groups))

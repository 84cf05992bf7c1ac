"""What a unit adds to its block's output, on real data: activations weighed by the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....ir.evaluated import evaluated
from ....ir.fx.graph import attribute
from ....ir.program import Program
from ...common.outputs import arguments, rows
from ...manager.contract import Context
from ...recover.training.own import watched
from ..surgery.units import Output, Units
from .gradients import sampled


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

"""A program whose units can be turned down: a mask of ones in front of every output projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from ....ir.fx.graph import add_tensor, call, clone
from ....ir.program import Program
from ..surgery.units import Units

aten = torch.ops.aten


@dataclass(frozen=True)
class Masked:
    """module: gives what the program gives while all masks are ones. masks: (units,) for each block, in the
    order given, trainable, float like what they multiply; they are the module's parameters too."""

    module: GraphModule
    masks: tuple[torch.nn.Parameter, ...]


def masked(program: Program, units: Sequence[Units]) -> Masked:
    """A clone, over the same weights, that multiplies what each output projection reads by a mask.

    A unit whose mask is 0 is as good as removed. Blocks that share units share a mask, and its gradient is
    the sum of theirs.

    Args:
        units: as found in the program, or in one that it is a clone of.
    """
    module = clone(program.graph)
    graph = module.graph
    nodes = {node.name: node for node in graph.nodes}
    masks = []
    for one in units:
        first = nodes[one.output.product]
        kind = nodes[one.output.operand].meta["val"].dtype
        mask = torch.nn.Parameter(torch.ones(one.size, dtype=kind))
        reader = add_tensor(module, "mask", mask, before=first)
        owner = add_tensor(module, "mask_owner", torch.from_numpy(one.owner()), before=first)
        wide = call(graph, aten.index_select.default, reader, 0, owner, before=first)
        for output in one.outputs:
            product, operand = nodes[output.product], nodes[output.operand]
            after = operand.meta["val"].dim() - 1 - output.axis
            shaped = (
                call(graph, aten.view.default, wide, [-1] + [1] * after, before=product) if after else wide
            )
            product.replace_input_with(operand, call(graph, aten.mul.Tensor, operand, shaped, before=product))
        masks.append(mask)
    module.recompile()
    return Masked(module, tuple(masks))

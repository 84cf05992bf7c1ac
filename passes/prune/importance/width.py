"""How much each channel of a residual stream matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....ir.evaluated import evaluated
from ....ir.fx.graph import add_tensor, call, clone
from ....ir.program import Program
from ...common.calibration import check
from ...common.outputs import arguments, rows
from ...manager.contract import Context
from ...recover.training.own import watched
from ..surgery.width import Width
from .choose import Method
from .gradients import gradients, sampled
from .masks import Masked
from .scores import by_gradients, magnitude

aten = torch.ops.aten


def scores(program: Program, widths: Sequence[Width], method: Method, context: Context) -> list[np.ndarray]:
    """For each stream a float64 array (channels,); methods as prune-hidden has them.

    Raises:
        DataError: the calibration data are empty, constant, NaN, or do not fit the program.
    """
    if method == "random":
        rng = np.random.default_rng(context.seed)
        return [rng.random(len(one.channels)) for one in widths]
    if method == "magnitude":
        return [_magnitude(one) for one in widths]
    check(program, context.calibration)
    if method == "activation":
        return _energies(program, widths, context)
    return by_gradients(gradients(program, _masked(evaluated(program), widths), context), method)


def _magnitude(width: Width) -> np.ndarray:
    norms = {id(together): magnitude(together) for together, _ in width.channels}
    return np.array([norms[id(together)][unit] for together, unit in width.channels])


def _masked(program: Program, widths: Sequence[Width]) -> Masked:
    """One mask a stream, over what each of its norms gives."""
    module = clone(program.graph)
    nodes = {node.name: node for node in module.graph.nodes}
    first = next(node for node in module.graph.nodes if node.op == "call_function")
    masks = []
    for one in widths:
        kind = nodes[one.sites[0]].meta["val"].dtype
        mask = torch.nn.Parameter(torch.ones(len(one.channels), dtype=kind))
        reader = add_tensor(module, "mask", mask, before=first)
        for name in one.sites:
            site = nodes[name]
            product = call(module.graph, aten.mul.Tensor, site, reader, before=site.next)
            site.replace_all_uses_with(product, delete_user_cb=lambda user, own=product: user is not own)
        masks.append(mask)
    module.recompile()
    return Masked(module, tuple(masks))


def _energies(program: Program, widths: Sequence[Width], context: Context) -> list[np.ndarray]:
    """The mean square of a channel where norms give it, as a share of all channels', summed over norms."""
    nodes = {node.name: node for node in program.graph.graph.nodes}
    sites = [(number, nodes[name]) for number, one in enumerate(widths) for name in one.sites]
    module = watched(evaluated(program).graph, [node for _, node in sites])
    totals = [torch.zeros(())] * len(sites)
    with torch.no_grad():
        for feed in sampled(program, context):
            seen = module(*arguments(program, feed))[len(program.outputs) :]
            totals = [
                t + rows(program, feed, x).double().square().sum(0) for t, x in zip(totals, seen, strict=True)
            ]
    found = [np.zeros(len(one.channels)) for one in widths]
    for (number, _), total in zip(sites, totals, strict=True):
        found[number] += (total / total.sum()).numpy()
    return found

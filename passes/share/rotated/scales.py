"""Scales and shifts of norms out of the way of another basis: into the products that read them, exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Linear, Norm
from ....ir.blocks.walk import Statics, bare
from ....ir.fx.graph import add_tensor, attribute, prune, replace_tensor
from ....ir.program import Program
from ....ir.view import view
from ...common.own_weights import readers, shared
from ...simplify.folds.linear import like, reads, take_input, unfit
from ...simplify.norms.affine import own


def store_scales(program: Program) -> None:
    """Makes a parameter of a norm's scale that is computed from one (Gemma's 1 + w), in place."""
    graph, static = view(program), Statics()
    for norm in recognise(graph).norm:
        for value in (norm.weight, norm.bias):
            node = None if value is None else bare(value).native
            if value is None or not isinstance(node, Node) or node.op == "get_attr" or not static(value):
                continue
            numbers = torch.nn.Parameter(_constant(program.graph, node).detach().clone())
            path = str(next(n for n in _above(node) if n.op == "get_attr").target)
            stored = add_tensor(program.graph, f"{path}_stored", numbers, node)
            node.replace_all_uses_with(stored)
    prune(program.graph)
    program.graph.recompile()


def fold(program: Program, norms: Iterable[Norm]) -> list[Norm]:
    """Takes scale and shift into the products that read a norm, wherever nothing else reads it, in place;
    what stays in the norm are ones and zeros. Gives the norms that keep their own."""
    graph = view(program)
    linears = recognise(graph).linear
    read, outputs = readers(graph), {bare(value) for value in graph.outputs}
    left = []
    for norm in norms:
        products, others = reads(norm.root, linears)
        serve = shared([bare(value) for value in (norm.weight, norm.bias) if value is not None], read)
        stuck = any(unfit(product, read, inputs=True) for product in products)
        if norm.root in outputs or others or not products or serve or stuck:
            left.append(norm)
        else:
            _take(program, norm, products)
    program.graph.recompile()
    return left


def own_scale(norms: Iterable[Norm]) -> np.ndarray | None:
    """(features,): the mean of norms' scales, each over its root mean square; None without any."""
    scales = [own(norm)[0] for norm in norms if norm.weight is not None]
    if not scales:
        return None
    return np.mean([(scale / scale.square().mean().sqrt()).numpy() for scale in scales], axis=0)


def _take(program: Program, norm: Norm, products: Iterable[Linear]) -> None:
    gamma, beta = own(norm)
    for product in products:
        take_input(program, product, gamma, beta)
    for value, fill in ((norm.weight, torch.ones_like), (norm.bias, torch.zeros_like)):
        if value is not None:
            node: Node = bare(value).native
            old = attribute(program.graph, str(node.target))
            replace_tensor(program.graph, node, like(old, fill(old.detach())))


def _above(node: Node) -> list[Node]:
    found, stack = [], [node]
    while stack:
        found.append(stack.pop())
        stack += found[-1].all_input_nodes
    return found


def _constant(gm: GraphModule, node: Node) -> Any:
    """What a node gives that is computed from parameters alone."""
    if node.op == "get_attr":
        return attribute(gm, str(node.target))
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda operand: _constant(gm, operand))
    target: Any = node.target
    with torch.no_grad():
        return target(*args, **kwargs)

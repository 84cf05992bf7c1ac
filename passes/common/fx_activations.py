"""What enters the weights of an fx program, seen on real feeds: second moments, and how often ids occur."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch.fx import Graph, GraphModule, Node

from ...ir.program import Program
from ..manager.contract import Feed
from .calibration import real_rows
from .fx_weights import Matrix
from .outputs import arguments


def statistics(
    program: Program, matrices: Sequence[Matrix], feeds: Sequence[Feed], constant: bool = False
) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """For each matrix by name: X^T X (columns, columns) over the activations of every product with it, and
    how often each row is looked up, padding left out, both float64; None for what it has not. Only what comes
    before them is run. constant: X has one more column, the last, that is 1."""
    inputs = {one.name: [(call.args[place], axis) for call, place, axis in one.products] for one in matrices}
    wanted = {node for found in inputs.values() for node, _ in found}
    wanted |= {ids for one in matrices for _, ids in one.lookups}
    values = [node for node in program.graph.graph.nodes if node in wanted]
    module = _upto(program.graph, values)
    grams: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for feed in feeds:
            found = dict(zip(values, module(*arguments(program, feed)), strict=True))
            each = dict.fromkeys(chain(*inputs.values()))  # q, k and v share theirs
            products = {
                (node, axis): _gram(program, feed, found[node], axis, constant) for node, axis in each
            }
            for one in matrices:
                for key in inputs[one.name]:
                    grams[one.name] = grams.get(one.name, 0) + products[key]
                for _, ids in one.lookups:
                    seen = real_rows(program, feed, found[ids].numpy()[..., None]).reshape(-1)
                    count = np.bincount(seen.astype(np.int64) % one.rows, minlength=one.rows)
                    counts[one.name] = counts.get(one.name, 0) + count.astype(np.float64)
    return {one.name: (grams.get(one.name), counts.get(one.name)) for one in matrices}


def _gram(program: Program, feed: Feed, x: torch.Tensor, axis: int, constant: bool) -> np.ndarray:
    flat = real_rows(program, feed, x.movedim(axis, -1).double().numpy())
    if constant:
        flat = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    return flat.T @ flat


def _upto(graph: GraphModule, values: list[Node]) -> GraphModule:
    copies: dict[Node, Node] = {}
    alone = Graph()
    alone.graph_copy(graph.graph, copies)
    alone.output(tuple(copies[value] for value in values))
    alone.eliminate_dead_code()
    return GraphModule(graph, alone)

"""What of an FX graph is fake-quantized: weights, each once, and what enters the products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from ...common.fx_weights import Matrix


@dataclass(frozen=True)
class Weight:
    """One tensor. reader: the first node that reads it. uses: (node that reads it, user) to be redirected.
    axis: of the output features, or of a table's rows."""

    name: str
    tensor: torch.Tensor
    reader: Node
    uses: tuple[tuple[Node, Node], ...]
    axis: int


@dataclass(frozen=True)
class Input:
    """What enters products. users: those products, in the graph's order. name: the path that its step's
    begins with. features: on the axis that products sum over."""

    x: Node
    users: tuple[Node, ...]
    name: str
    features: int


def weights(matrices: Sequence[Matrix], embeddings: bool) -> tuple[list[Weight], list[str]]:
    """The weights of linear layers, and a sentence for each matrix that stays in float.

    Args:
        embeddings: tables too, and the lookups in those that are weights as well.
    """
    found, notes = [], []
    for one in matrices:
        if not one.products and not embeddings:
            notes.append(f"{one.name} stays in float: only rows of it are looked up, and embeddings=false")
        elif one.tensor.dtype != torch.float32:
            notes.append(
                f"{one.name} stays in float: it is {one.tensor.dtype}, and torch.float32 is what is rounded"
            )
        else:
            if not one.tensor.any():
                notes.append(f"{one.name} is all zeros, and so are its integers until training moves it")
            lookups = {call for call, _ in one.lookups}
            uses = tuple(
                (r, user) for r in one.readers for user in r.users if embeddings or user not in lookups
            )
            found.append(Weight(one.name, one.tensor, one.readers[0], uses, int(one.turned)))
    return found, notes


def inputs(graph: Graph, matrices: Sequence[Matrix]) -> tuple[list[Input], list[str]]:
    """The activations that enter linear layers, in order, and a sentence for each that stays in float."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    products = [(order[call], call, place, one) for one in matrices for call, place, _ in one.products]
    users: dict[Node, list[Node]] = {}
    found: dict[Node, tuple[str, int]] = {}
    notes = []
    for _, call, place, one in sorted(products, key=lambda product: product[0]):
        x = call.args[place]
        assert isinstance(x, Node)
        if x.meta["val"].dtype != torch.float32:
            notes.append(f"what enters {call.name} stays in float: it is {x.meta['val'].dtype}")
            continue
        module = one.name.rpartition(".")[0]
        found.setdefault(x, (f"{module}.input" if module else "input", one.columns))
        users.setdefault(x, []).append(call)
    return [Input(x, tuple(users[x]), *found[x]) for x in found], notes

"""The work of quantize-ternary and quantize-binary on the fx graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.fx.graph import add_tensor, clone, prune, replace_tensor
from ....ir.program import Program
from ...common.fx_weights import Matrix, choose
from ...manager.contract import Context, Result
from ...recover.teaching.imitation import Teacher, imitate, own_vectors
from ..codes.fx_decode import SHARED, bytes_of, narrow, write
from ..codes.packing import pack, table
from .levels import Levels, straight_through

if TYPE_CHECKING:
    from .few_levels import FewLevels


def quantize(
    options: FewLevels, levels: Levels, values: Sequence[float], program: Program, context: Context
) -> Result:
    """Edits the program's graph.

    Args:
        levels: what a weight becomes.
        values: the levels in the order of their codes; as many bits are stored as tell them apart.
    """
    fit = lambda m: "tables are left out (embeddings=false)" if m.lookups and not options.embeddings else ""
    chosen, notes = choose(program, context, fit)
    if not chosen:
        return Result(program, False, notes=tuple(notes))
    teacher = Teacher.of(program, context)
    untaught = teacher.measure(simulated(program.graph, chosen, levels, options.scales))
    if options.steps:
        vectors = own_vectors(program.graph)
        latent = [_own(program.graph, matrix) for matrix in chosen]
        student = teacher.watched(simulated(program.graph, chosen, levels, options.scales))
        imitate(
            teacher, student, [*latent, *vectors], options.steps, options.rate,
            progress=context.progress, title="learning weights",
        )  # fmt: skip
    stored = _store(program.graph, chosen, levels, values, options.scales)
    after = teacher.measure(program.graph)
    numbers = sum(matrix.tensor.numel() for matrix in chosen)
    statistics: dict[str, int | float | str] = {
        "weights coded": len(chosen),
        "bits a weight": round(8 * stored / numbers, 3),
        "times smaller": round(sum(matrix.tensor.nbytes for matrix in chosen) / stored, 2),
        "cosine before learning": round(untaught.cosine, 5),
        "cosine": round(after.cosine, 5),
        "loss before learning": round(untaught.outputs, 5),
        "loss": round(after.outputs, 5),
    }
    return Result(program, True, statistics, tuple(notes))


def simulated(graph: GraphModule, chosen: Sequence[Matrix], levels: Levels, scales: str) -> GraphModule:
    """A clone that computes with levels of the same weights, which get their gradients straight through."""
    graph = clone(graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    learned = straight_through(levels)

    def after(node: Node, axes: tuple[int, ...]) -> Node:
        with graph.graph.inserting_after(node):
            return graph.graph.call_function(learned, (node, axes))

    for matrix in chosen:
        lookups = [nodes[call.name] for call, _ in matrix.lookups]
        for lookup in lookups:
            coded = after(lookup, (-1,))
            lookup.replace_all_uses_with(coded, delete_user_cb=lambda user, coded=coded: user is not coded)
        for reader in (nodes[reader.name] for reader in matrix.readers):
            if all(user in lookups for user in reader.users):
                continue
            coded = after(reader, _axes(matrix, scales))
            keep = {*lookups, coded}
            reader.replace_all_uses_with(coded, delete_user_cb=lambda user, keep=keep: user not in keep)
    graph.recompile()
    return graph


def _axes(matrix: Matrix, scales: str) -> tuple[int, ...]:
    """The axes of the stored tensor that share a scale."""
    every = tuple(range(matrix.tensor.dim()))
    if scales == "matrix" and not matrix.lookups:
        return every
    return (0,) if matrix.turned else every[1:]


def _own(graph: GraphModule, matrix: Matrix) -> torch.nn.Parameter:
    """A copy of a weight in its place, for this graph alone."""
    latent = torch.nn.Parameter(matrix.tensor.detach().clone())
    for reader in matrix.readers:
        replace_tensor(graph, reader, latent)
    matrix.tensor = latent
    return latent


def _store(
    graph: GraphModule, chosen: Sequence[Matrix], levels: Levels, values: Sequence[float], scales: str
) -> int:
    """Packed codes in place of the weights; gives their bytes."""
    bits = (len(values) - 1).bit_length()
    padded = np.resize(np.array(values, np.float16), 2**bits)
    first = next(node for node in graph.graph.nodes if node.op == "get_attr")
    what_bytes_hold = torch.from_numpy(table(bits, padded))
    shared = add_tensor(graph, SHARED, what_bytes_hold, first)
    stored = what_bytes_hold.nbytes
    for matrix in chosen:
        numbers = matrix.numbers()
        signs, scale = levels(numbers, (0, 1) if scales == "matrix" and not matrix.lookups else (1,))
        codes = np.searchsorted(np.array(values), signs.numpy()).astype(np.uint8)
        (packed,) = pack(codes, bits)
        coded = write(graph, matrix, torch.from_numpy(packed), shared, torch.nn.Parameter(scale))
        narrow(graph, coded.scale)
        stored += bytes_of(graph, coded) - what_bytes_hold.nbytes
    prune(graph)
    return stored

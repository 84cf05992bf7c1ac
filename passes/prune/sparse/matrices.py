"""The matrices of a program that zeros are put into, seen as (outputs, inputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.fx import Node

from ....ir.errors import PassError
from ....ir.fx.graph import add_tensor, attribute, call, prune, set_attribute
from ....ir.program import Program
from ...common.fx_weights import Matrix, find, quantized
from ...manager.contract import Context
from .patterns import Sparsity

ATEN = torch.ops.aten


def chosen(program: Program, pattern: Sparsity, context: Context) -> tuple[list[Matrix], list[str]]:
    """The weights of products that fit the pattern, and a sentence for each other. Tables stay whole: each
    row is looked up alone.

    Raises:
        PassError: the model is quantized, or no matrix is left.
    """
    if (what := quantized(program.graph)) is not None:
        raise PassError(f"the model is quantized already (it has {what}): prune its weights before")
    matrices, notes = find(program)
    left: list[Matrix] = []
    unfit: list[str] = []
    for matrix in matrices:
        if matrix.lookups:
            notes.append(f"{matrix.name}: stays whole, its rows are looked up")
        elif reason := pattern.unfit((matrix.rows, matrix.columns)):
            unfit.append(f"{matrix.name}: stays whole, {reason}")
        elif context.allow(f"prune {matrix.name}"):
            left.append(matrix)
    if not left:
        raise PassError("; ".join(["no weight can be pruned so", *[*unfit, *notes][:1]]))
    return left, [*unfit, *notes]


def oriented(matrix: Matrix, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the shape of a matrix's weight as (outputs, inputs); a view."""
    return tensor.T if matrix.turned else tensor.reshape(matrix.rows, matrix.columns)


def as_stored(matrix: Matrix, tensor: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs) in the shape that the weight is stored in."""
    return (tensor.T if matrix.turned else tensor.reshape(matrix.tensor.shape)).contiguous()


def weight(program: Program, matrix: Matrix) -> torch.Tensor:
    """The weight as it is in the program now, (outputs, inputs)."""
    return oriented(matrix, attribute(program.graph, matrix.name).detach())


def put(program: Program, matrix: Matrix, kept: torch.Tensor) -> None:
    """Zeros where weights are not kept, in a tensor of the program's own."""
    old = attribute(program.graph, matrix.name)
    new = torch.nn.Parameter(old.detach() * as_stored(matrix, kept).to(old.dtype), old.requires_grad)
    for path in dict.fromkeys(str(reader.target) for reader in matrix.readers):
        set_attribute(program.graph, path, new)


class WeightMasks:
    """Masks in the graph: every product reads its weight times a mask of zeros and ones.

    With scores, the mask passes a gradient straight through to them, that of the product with the weight
    (Sanh et al., 2020, arXiv:2005.07683, equations 3 to 5): dL/dS = dL/dW' * W.

    Args:
        matrices: of this program, whose parameters are its own already.
        scored: whether there are scores to learn; they start at 0.
    """

    def __init__(self, program: Program, matrices: Sequence[Matrix], scored: bool = False) -> None:
        self.program, self.matrices = program, list(matrices)
        self.masks = {matrix.name: torch.ones(matrix.tensor.shape) for matrix in matrices}
        self.scores: dict[str, torch.nn.Parameter] = {}
        if scored:
            self.scores = {m.name: torch.nn.Parameter(torch.zeros(m.tensor.shape)) for m in matrices}
        self._inserted: list[tuple[Node, Node]] = []
        for matrix in self.matrices:
            for reader in matrix.readers:
                self._insert(matrix, reader)
        program.graph.recompile()

    def set(self, kept: Mapping[str, torch.Tensor]) -> None:
        """Which weights stay from now on: (outputs, inputs) by name; those written into by graphs that share
        the mask too."""
        for matrix in self.matrices:
            self.masks[matrix.name].copy_(as_stored(matrix, kept[matrix.name]))

    def kept(self) -> dict[str, torch.Tensor]:
        """(outputs, inputs) of True and False by name."""
        return {matrix.name: oriented(matrix, self.masks[matrix.name]).bool() for matrix in self.matrices}

    def fold(self) -> None:
        """Takes the masks out of the graph and puts the zeros into the weights."""
        for reader, masked in self._inserted:
            masked.replace_all_uses_with(reader)
        prune(self.program.graph)
        for matrix in self.matrices:
            put(self.program, matrix, oriented(matrix, self.masks[matrix.name]))
        self.program.graph.recompile()

    def _insert(self, matrix: Matrix, reader: Node) -> None:
        gm, graph = self.program.graph, self.program.graph.graph
        users = list(reader.users)
        first = reader.next
        mask = add_tensor(gm, f"{matrix.name}_mask", self.masks[matrix.name], first)
        masked = call(graph, ATEN.mul.Tensor, reader, mask, before=first)
        if matrix.name in self.scores:
            score = add_tensor(gm, f"{matrix.name}_score", self.scores[matrix.name], first)
            still = call(graph, ATEN.detach.default, score, before=first)
            moved = call(graph, ATEN.sub.Tensor, score, still, before=first)
            fixed = call(graph, ATEN.detach.default, reader, before=first)
            straight = call(graph, ATEN.mul.Tensor, fixed, moved, before=first)
            masked = call(graph, ATEN.add.Tensor, masked, straight, before=first)
        for user in users:
            user.replace_input_with(reader, masked)
        self._inserted.append((reader, masked))

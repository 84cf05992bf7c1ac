"""prune-weights: zeros in place of the smallest weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result
from .sparse.patterns import Scope, Sparsity


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Set the weights of least magnitude to zero (Han et al., 2015, arXiv:1506.02626), without training.

            w = [0.9, -0.1, 0.02, -0.7]
        ->  w = [0.9, 0, 0, -0.7]

    Tables and biases stay whole. Zeros buy bytes where they are stored or packed as such, which the
    statistics count, and no time on a dense runtime; where structure is to go, so that time does, use
    prune-heads, prune-ffn or prune-layers.

    pattern: unstructured, 2:4 (2 of 4 consecutive inputs stay) or 4x1 (blocks of 4 outputs by 1 input).
    sparsity: the share of zeros; n:m has its own.
    scope: what is ranked together, each "matrix" or the whole "model".
    method: "random" is the control.
    """

    name: ClassVar[str] = "prune-weights"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    pattern: str = "unstructured"
    sparsity: float = 0.5
    scope: Scope = "matrix"
    method: Literal["magnitude", "random"] = "magnitude"

    def __post_init__(self) -> None:
        Sparsity.read(self.pattern, self.sparsity)

    def run(self, program: Program, context: Context) -> Result:
        import torch

        from .sparse.choice import kept
        from .sparse.matrices import chosen, put, weight
        from .sparse.report import notes, statistics

        before = program.clone()
        pattern = Sparsity.read(self.pattern)
        matrices, said = chosen(program, pattern, context)
        generator = torch.Generator().manual_seed(context.seed)
        scores = {}
        for matrix in matrices:
            numbers = weight(program, matrix).float()
            random = self.method == "random"
            scores[matrix.name] = torch.rand(numbers.shape, generator=generator) if random else numbers.abs()
        stay = kept(pattern, scores, self.sparsity, self.scope)
        going = [m for m in matrices if weight(program, m)[~stay[m.name]].any()]
        for matrix in going:
            put(program, matrix, stay[matrix.name])
        program.graph.recompile()
        found = statistics(program, matrices, pattern)
        return Result(program, bool(going), found, (*said, *notes(before, program, context)))

"""fold-batch-norm: batch norms go into the convolutions and products beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Move batch norms, with the statistics that they have, into a convolution or product beside them.

            y = batch_norm(conv1d(x, w, b), weight, bias, mean, var, eps)
        ->  y = conv1d(x, s w, s (b - mean) + bias)        s = weight / sqrt(var + eps)

    In evaluation a batch norm (Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 2) is an affine map by
    channel. It goes back into the convolution, or the product, whose result nothing else reads, past a
    transposition too; or on into what reads its result, unless that is padded with zeros, which a norm before
    it moves. One that trains, or stands beside neither, stays and is named.
    """

    name: ClassVar[str] = "fold-batch-norm"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        from .folds.batch_norm import look
        from .folds.rounds import rounds

        return rounds(program, context, "batch norms", look)

"""fold-affine: element-wise affine maps go into the products beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class FoldAffine(Pass):
    """Move element-wise affine maps (NoNorm) into the products that make or read what they map.

            y = x * gamma + beta; z = linear(y, w, b)
        ->  z = linear(x, w * gamma, b + w beta)

            x = linear(h, w, b); y = x * gamma + beta
        ->  y = linear(h, gamma * w, gamma * b + beta)

    A map goes back into the product that makes its input where nothing else reads that, or on into the
    products that read its result where these are all that does. Where a residual sum, an output or another
    operator needs the result too, or a weight serves other layers, it stays, and is named with that reason.
    """

    name: ClassVar[str] = "fold-affine"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        from .folds.affine import look
        from .folds.rounds import rounds

        return rounds(program, context, "maps", look)

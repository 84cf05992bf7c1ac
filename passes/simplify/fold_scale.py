"""fold-scale: multiplications by a number go into the products beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Exact, Pass, Result


@dataclass(frozen=True)
class FoldScale(Pass):
    """Move multiplications and divisions by a constant number into the weights of a product beside them.

            q = linear(x, w, b); s = matmul(q, k) * 0.125
        ->  q = linear(x, 0.125 w, 0.125 b); s = matmul(q, k)

            y = x / 8; z = linear(y, w, b)
        ->  z = linear(x, w / 8, b)

    So go the 1/sqrt(d) of attention scores, through the product of queries and keys, and the scale of logits.
    A number goes back where the product's result is read by nothing else on the way, or on where products are
    all that reads it; where neither is so, or a weight serves other layers, it stays, and is named.
    """

    name: ClassVar[str] = "fold-scale"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        from .folds.rounds import rounds
        from .folds.scale import look

        return rounds(program, context, "numbers", look)

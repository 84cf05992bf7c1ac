"""fold-affine: element-wise affine maps go into the products beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.blocks import recognise
from ...ir.blocks.walk import bare, users
from ...ir.program import Program
from ...ir.view import view
from ..common.own_weights import readers
from ..manager.contract import Context, Exact, Pass, Result

if TYPE_CHECKING:
    from ...ir.blocks.base import Linear, Norm
    from ...ir.values import Value, View


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
        from ...ir.fx.graph import prune

        folded = into = 0
        refused: set[str] = set()
        while True:
            notes: list[str] = []
            before = folded
            graph = view(program)
            blocks = recognise(graph)
            work = _Round(program, graph, blocks.linear)
            for norm in blocks.norm:
                if norm.kind != "no_norm" or norm.root.name in refused:
                    continue
                products, back, reason = work.takers(norm)
                if reason:
                    notes.append(f"{norm.root.name} stays: {reason}")
                elif not work.free(norm, products):
                    continue  # in the next round
                elif context.allow(f"fold {norm.root.name} into {', '.join(p.root.name for p in products)}"):
                    work.fold(norm, products, back)
                    folded, into = folded + 1, into + len(products)
                else:
                    refused.add(norm.root.name)
            if folded == before:
                break
            prune(program.graph)
        statistics: dict[str, int | float | str] = {
            "maps folded": folded,
            "products that took them": into,
            "maps left": len(notes),
        }
        return Result(program, folded > 0, statistics, tuple(notes))


class _Round:
    """Maps folded by one look at the graph: a product takes one of them, what goes on takes another look."""

    def __init__(self, program: Program, graph: View, linears: Sequence[Linear]) -> None:
        self._program, self._linears = program, linears
        self._read = readers(graph)
        self._ends = {bare(value) for value in graph.outputs}
        self._made = {linear.root: linear for linear in linears}
        self._touched: set[Value] = set()

    def takers(self, norm: Norm) -> tuple[list[Linear], bool, str]:
        """(the products that take a map in, whether they come before it, why it stays instead)."""
        from .folds.linear import reads, unfit

        if any(value is not None and bare(value).tensor is None for value in (norm.weight, norm.bias)):
            return [], False, "its numbers are computed"
        maker = self._made.get(bare(norm.input))
        behind = ""
        if maker is not None:
            users_ = [user for user in users(maker.root) if user not in norm.body]
            behind = unfit(maker, self._read, inputs=False)
            if maker.axis != -1 or users_ or maker.root in self._ends:
                behind = f"{users_[0].name if users_ else 'an output'} reads {maker.root.name} too"
            if not behind:
                return [maker], True, ""
        products, others = reads(norm.root, self._linears)
        if norm.root in self._ends:
            return [], False, behind or "it is an output"
        if others or not products:
            what = f"{others[0].name} ({others[0].op}) needs its result" if others else "nothing reads it"
            return [], False, f"{what}{', and ' + behind if behind else ''}"
        reasons = [reason for linear in products if (reason := unfit(linear, self._read, inputs=True))]
        return products, False, reasons[0] if reasons else ""

    def free(self, norm: Norm, products: Sequence[Linear]) -> bool:
        """Whether nothing of it was changed in this round."""
        return not self._touched.intersection([bare(norm.input), *(product.root for product in products)])

    def fold(self, norm: Norm, products: Sequence[Linear], back: bool) -> None:
        from .folds.linear import take_input, take_output
        from .norms.affine import own

        gamma, beta = own(norm)
        result = norm.input.native
        for product in products:
            if back:
                result = take_output(self._program, product, gamma, beta)
            else:
                take_input(self._program, product, gamma, beta)
        norm.root.native.replace_all_uses_with(result)
        self._touched |= {norm.root, *(product.root for product in products)}

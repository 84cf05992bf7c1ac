"""Element-wise affine maps, and the products that can take them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ....ir.blocks import recognise
from ....ir.blocks.base import Linear, Norm
from ....ir.blocks.walk import bare, users
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from ...common.own_weights import readers
from ..norms.affine import own
from .linear import reads, take_input, take_output, unfit
from .rounds import Fold


def look(program: Program) -> Iterator[Fold]:
    """What can be folded of an fx program's maps, and why the others stay."""
    graph = view(program)
    blocks = recognise(graph)
    read = readers(graph)
    ends = {bare(value) for value in graph.outputs}
    made = {linear.root: linear for linear in blocks.linear}
    for norm in blocks.norm:
        if norm.kind != "no_norm":
            continue
        maker = made.get(bare(norm.input))
        behind = _behind(norm, maker, read, ends) if maker is not None else "no product makes its input"
        if any(value is not None and bare(value).tensor is None for value in (norm.weight, norm.bias)):
            yield Fold(norm.root, reason="its numbers are computed")
        elif maker is not None and not behind:
            yield _fold(program, norm, [maker], back=True)
        else:
            products, others = reads(norm.root, blocks.linear)
            reason = _before(norm, products, others, read, ends)
            if reason:
                also = f", and {behind}" if maker is not None else ""
                yield Fold(norm.root, reason=f"{reason}{also}")
            else:
                yield _fold(program, norm, products, back=False)


def _fold(program: Program, norm: Norm, products: Sequence[Linear], back: bool) -> Fold:
    def apply() -> None:
        gamma, beta = own(norm)
        result = norm.input.native
        for product in products:
            if back:
                result = take_output(program, product, gamma, beta)
            else:
                take_input(program, product, gamma, beta)
        norm.root.native.replace_all_uses_with(result)

    roots = tuple(product.root for product in products)
    return Fold(norm.root, roots, (bare(norm.input), *roots), apply)


def _behind(norm: Norm, maker: Linear, read: Mapping[int, int], ends: set[Value]) -> str:
    """Why the product that makes a map's input does not take it in."""
    others = [user for user in users(maker.root) if user not in norm.body]
    if others or maker.root in ends:
        return f"{others[0].name if others else 'an output'} reads {maker.root.name} too"
    return f"{maker.root.name} is a convolution" if maker.axis != -1 else unfit(maker, read, inputs=False)


def _before(
    norm: Norm,
    products: Sequence[Linear],
    others: Sequence[Value],
    read: Mapping[int, int],
    ends: set[Value],
) -> str:
    """Why the products that read a map's result do not take it in."""
    if norm.root in ends:
        return "it is an output"
    if others:
        return f"{others[0].name} ({others[0].op}) needs its result"
    if not products:
        return "nothing reads it"
    return next((reason for each in products if (reason := unfit(each, read, inputs=True))), "")

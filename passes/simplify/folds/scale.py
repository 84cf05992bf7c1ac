"""Multiplications by numbers, and the products that can take them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

import torch

from ....ir.blocks import recognise
from ....ir.blocks.base import Linear
from ....ir.blocks.residual import MOVES
from ....ir.blocks.scores import times
from ....ir.blocks.walk import bare, users
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from ...common.own_weights import readers
from .linear import reads, take_input, take_output, unfit
from .rounds import Fold


def look(program: Program) -> Iterator[Fold]:
    """What can be folded of an fx program's numbers. Those that are near no product are not told of."""
    graph = view(program)
    linears = recognise(graph).linear
    read = readers(graph)
    ends = {bare(value) for value in graph.outputs}
    made = {linear.root: linear for linear in linears}
    for value in graph.values:
        scaled = times(value)
        if scaled is None or "float" not in str(value.dtype) or scaled[1].dtype != value.dtype:
            continue
        number, x = scaled
        if not isfinite(number) or number in (0, 1):
            continue
        maker = _maker(x, value, made, ends)
        if isinstance(maker, Linear) and not unfit(maker, read, inputs=False):
            yield _fold(program, value, x, number, [maker], back=True)
            continue
        products, others = reads(value, linears)
        reason = _before(value, products, others, read, ends)
        if products and not reason:
            yield _fold(program, value, x, number, products, back=False)
        elif maker is not None:
            why = unfit(maker, read, inputs=False) if isinstance(maker, Linear) else maker
            yield Fold(value, reason=why)
        elif products:
            yield Fold(value, reason=reason)


def _maker(value: Value, user: Value, made: Mapping[Value, Linear], ends: set[Value]) -> Linear | str | None:
    """The product whose result comes to `user` by moves, numbers and products of activations alone, or what
    else reads it on the way. None where no product is behind."""
    value = bare(value)
    others = [each for each in users(value) if each != user]
    shared = f"{others[0].name if others else 'an output'} reads {value.name} too"
    alone = not others and value not in ends
    if value in made:
        return made[value] if alone else shared
    if value.op in MOVES and value.inputs[0] is not None:
        sources = [value.inputs[0]]
    elif value.op == "matmul" and value.inputs[0] != value.inputs[1]:
        sources = [each for each in value.inputs if each is not None]
    elif (scaled := times(value)) is not None:
        sources = [scaled[1]]
    else:
        return None
    found = [_maker(source, value, made, ends) for source in sources]
    linear = next((each for each in found if isinstance(each, Linear)), None)
    if linear is not None and not alone:
        return shared
    return linear or next((each for each in found if each is not None), None)


def _fold(
    program: Program, value: Value, x: Value, number: float, products: Sequence[Linear], back: bool
) -> Fold:
    def apply() -> None:
        for product in products:
            size = product.out_features if back else product.in_features
            scale = torch.full((size,), number, dtype=torch.float64)
            (take_output if back else take_input)(program, product, scale, None)
        value.native.replace_all_uses_with(x.native)

    roots = tuple(product.root for product in products)
    return Fold(value, roots, (bare(x), x, *roots), apply)


def _before(
    value: Value,
    products: Sequence[Linear],
    others: Sequence[Value],
    read: Mapping[int, int],
    ends: set[Value],
) -> str:
    """Why the products that read a scaled value do not take its number in."""
    if others or value in ends:
        return f"{others[0].name if others else 'an output'} needs its result"
    return next((reason for each in products if (reason := unfit(each, read, inputs=True))), "")

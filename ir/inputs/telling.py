"""Inputs to trace an fx program with anew, at which its sizes are told apart."""

from __future__ import annotations

from ..program import Program
from .probe import Feed, example, example_sizes, feed

_LENGTHS = (5, 23, 101, 499, 1999, 61, 211, 307, 389, 1009)  # the first that tells sizes apart is taken


def telling(program: Program) -> Feed:
    """Inputs to trace with: no size that is a quotient of others (tokens that stay) is one, or like another,
    for torch.export would take the two for the same."""
    from torch.utils._sympy.functions import FloorDiv

    nodes = list(program.graph.graph.nodes)
    shapes = [getattr(node.meta.get("val"), "shape", ()) for node in nodes]
    found = {d.node.expr for shape in shapes for d in shape if not isinstance(d, int)}
    given = [shape for node, shape in zip(nodes, shapes, strict=True) if node.op == "placeholder"]
    for length in _LENGTHS:
        sizes = example_sizes(program, length)  # alone: an image of so many patches would take gigabytes
        known = {
            d.node.expr: sizes[dim] if isinstance(dim, str) else dim
            for shape, spec in zip(given, program.inputs, strict=True)
            for d, dim in zip(shape, spec.shape, strict=True)
            if not isinstance(d, int)
        }
        try:
            numbers = [int(e.subs(known)) for e in found if e.has(FloorDiv)]
        except ZeroDivisionError:  # a size that is a share of what such a text has none of
            continue
        if len({1, *known.values(), *numbers}) == 1 + len({*known.values()}) + len(numbers):
            return feed(program, sizes, "right")
    return example(program)

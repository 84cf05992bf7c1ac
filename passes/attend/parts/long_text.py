"""A program whose shapes are those of a long text, as what is traced into it shall be."""

from __future__ import annotations

from ....ir.fx.rebound import rebound
from ....ir.program import Program

_LENGTHS = (1999, 1009, 499, 211, 61, 23, 5)  # the first that the program takes
_ROWS = (7, 3, 2)


def long_text(program: Program) -> None:
    """States shapes anew, in place. A text that was captured in one block would make one of every number of
    blocks: a size of 1 is broadcast where it is traced, and is then no symbol any more."""
    dims = [dim for spec in program.inputs for dim in spec.shape if isinstance(dim, str)]
    if not set(dims) <= set(program.symbols):
        return
    rows = {spec.shape[0] for spec in program.inputs if spec.shape}
    sizes: dict[str, int] = {}
    for symbol, (low, high) in program.symbols.items():
        some = _ROWS if symbol in rows else _LENGTHS
        fit = [size for size in some if low <= size <= high and size not in sizes.values()]
        if not fit:
            return
        sizes[symbol] = fit[0]
    rebound(program.graph, program.inputs, program.symbols, sizes)

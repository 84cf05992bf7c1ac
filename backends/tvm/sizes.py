"""The sizes to compile a program at: those of given calls, and one for the longest text."""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.program import Program
from ..feeds import Feed

STEP = 16  # lengths are rounded up to a multiple: a batch of sentences stands for others about as long


def sizes_of(program: Program, feeds: Iterable[Feed]) -> list[dict[str, int]]:
    """The size of every symbol of the program's inputs, for each different call.

    Args:
        program: whose input specs name the symbols.
        feeds: calls that fit them.
    """
    found: list[dict[str, int]] = []
    for feed in feeds:
        sizes: dict[str, int] = {}
        for spec in program.inputs:
            for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes[dim] = size
        if sizes not in found:
            found.append(sizes)
    return found

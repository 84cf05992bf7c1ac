"""The sizes to compile a program at: those of given calls, and one for the longest text."""

from __future__ import annotations

from collections.abc import Iterable

from ....ir.program import Program
from ...bundles.feeds import Feed, coordinates
from ...bundles.record import Padding

STEP = 16  # a batch of unequal sentences stands for others about as long: lengths go up to a multiple
LONGEST = 512  # tokens, up to which the longest text that the program takes gets a size of its own


def covering(program: Program, padding: Padding, feeds: Iterable[Feed]) -> list[dict[str, int]]:
    """Sizes that hold the given calls and, where a call may be padded, a text of any length that the program
    takes.

    Args:
        program: whose input specs name the symbols.
        feeds: calls that fit them.

    Returns:
        The size of every symbol of the program's inputs, for each size.
    """
    found: list[dict[str, int]] = []
    length = padding.length
    _, bound = program.symbols.get(length or "", (1, LONGEST))
    for feed in feeds:
        sizes = _sizes(program, feed)
        if length and coordinates(program.inputs, feed)[2]:
            sizes[length] = min(-(-sizes[length] // STEP) * STEP, bound)
        if sizes not in found:
            found.append(sizes)
    longest = min(longest_text(program, padding), LONGEST)
    if length and all(sizes[length] < longest for sizes in found):
        found.append({symbol: program.symbols.get(symbol, (1, 1))[0] for symbol in found[0]})
        found[-1][length] = longest
    return found


def longest_text(program: Program, padding: Padding) -> int:
    """Tokens of the longest text that the program takes; LONGEST where its texts have one length."""
    _, bound = program.symbols.get(padding.length or "", (1, LONGEST))
    return min(bound, int(program.info.get("max_length") or bound))


def _sizes(program: Program, feed: Feed) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec in program.inputs:
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True):
            if isinstance(dim, str):
                sizes[dim] = size
    return sizes

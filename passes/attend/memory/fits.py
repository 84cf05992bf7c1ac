"""Whether a model can have a memory, and how long its segments may be then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....ir.blocks.sight import hiding
from ....ir.errors import PassError
from ....ir.program import Program
from ....ir.spec import UNBOUNDED
from ..parts.seen import Seen
from ..parts.site import Site

_FAR = 4097  # places that are looked over for a window, where memory and texts are shorter or have no end


def length_of(program: Program, found: Sequence[Site], reasons: Mapping[int, str], span: int) -> str:
    """The symbol of the length of all attentions, which look back only, to any distance.

    Args:
        found, reasons: as `sites` gives them. span: tokens remembered.

    Raises:
        PassError: an attention can't be one over a memory, by name.
    """
    if reasons:
        raise PassError(f"all attentions remember, or none: {reasons[min(reasons)]}")
    lengths = []
    for site in found:
        if reason := _unfit(site):
            raise PassError(f"{site.name}: {reason}")
        lengths.append((site.attention.query.shape or ())[site.attention.layouts[0].index("l")])
    first, *others = dict.fromkeys(lengths)
    if others or first not in program.symbols:
        raise PassError(f"segments are of any length, and texts are of {first} tokens: free that axis first")
    _, high = program.symbols[str(first)]
    far, looked = min(high, max(span + 1, _FAR)), set()
    for site in found:
        masks = tuple(hiding(site.attention))
        if masks and masks not in looked and not Seen(program, site).reaches(far):
            raise PassError(
                f"{site.name}: it looks at a window of keys already, and a memory is one in its place"
            )
        looked.add(masks)
    return str(first)


def bounds(program: Program, symbol: str, span: int) -> dict[str, tuple[int, int]]:
    """The program's bounds, where memory and segment together are as long as the longest text.

    Raises:
        PassError: nothing is left for a segment.
    """
    low, high = program.symbols[symbol]
    left = high if high >= UNBOUNDED else high - span
    if left < max(low, 1):
        raise PassError(
            f"texts have {high} places at most and the memory takes {span} of them: give it fewer, or put "
            "extend-positions before it"
        )
    return {**program.symbols, symbol: (low, left)}


def _unfit(site: Site) -> str:
    attention = site.attention
    if not site.causal:
        return "it looks ahead, and a memory is for models that look back only"
    if site.more:
        return site.more
    if attention.k is None or attention.v is None:
        return "its keys or values come from no projection"
    return ""

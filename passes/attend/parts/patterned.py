"""Patterns of keys that self-attentions show: whether there are any, how they are cut, and blocks written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ....ir.blocks.base import Attention
from ....ir.errors import PassError
from ....ir.fx.graph import prune
from ....ir.program import Program
from .blocked import Shared, blocked, shared
from .blocks import Band, Table
from .cutting import cut
from .seen import Seen
from .site import Site, beside_masks, sites

Forms = dict[int, Band | Table]  # by number of a self-attention, one object where they are equal


def patterned(program: Program, length: int | None) -> bool:
    """Whether some attention hides keys from a text of so many tokens, or of any that there may be."""
    try:
        found, _ = sites(program)
    except PassError:
        return False
    masks = {_mask(site.attention): site for site in found if not beside_masks(site.attention)}
    for site in masks.values():
        wished = length or site.longest
        try:
            seen = Seen(program, site)
            if seen.lengths is None or wished is None:
                continue
            low, high = seen.lengths
            if not seen.reaches(min(max(wished, low), high)):
                return True
        except ValueError:  # no mask of keys alone
            continue
    return False


def forms(
    program: Program, found: Iterable[Site], size: int, layers: Sequence[int]
) -> tuple[Forms, dict[int, str]]:
    """How the patterns are cut, and why others aren't.

    layers: numbers of those that are looked at; none for all.
    """
    known: dict[tuple, Band | Table | str] = {}
    cuts: Forms = {}
    reasons = {}
    for site in found:
        if layers and site.number not in layers:
            continue
        if why := beside_masks(site.attention):
            reasons[site.number] = f"{site.name}: {why}"
            continue
        key = _mask(site.attention)
        if key not in known:
            try:
                made = cut(Seen(program, site), size)
                known[key] = known.setdefault(made.key, made)
            except ValueError as reason:
                known[key] = str(reason)
        form = known[key]
        if isinstance(form, str):
            reasons[site.number] = f"{site.name}: {form}"
        else:
            cuts[site.number] = form
    return cuts, reasons


def written(program: Program, forms: Mapping[int, Band | Table]) -> Program:
    """The program with blocks in the place of those attentions."""
    known: dict[int, Shared] = {}
    for site in sites(program)[0]:
        if (form := forms.get(site.number)) is not None:
            if id(form) not in known:
                known[id(form)] = shared(program, site, form)
            site.end.replace_all_uses_with(blocked(site, known[id(form)]))
    prune(program.graph)
    program.graph.recompile()
    return program


def _mask(a: Attention) -> tuple:
    """Equal where attentions hide the same keys."""
    return (a.terms, a.mask, a.selected, a.mask_keeps, a.causal)

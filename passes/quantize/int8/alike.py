"""Graphs of one bundle quantized alike: what was measured on one is taken over by the others.

They answer the same calls, each those that it is fastest for. Ranges found a second time would differ in the
last digits, a layer near the budget would climb in one graph alone, and a text's vector would depend on the
size of the call that it is in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...manager.contract import Context
from .rewrite import Rung, Static
from .sites import Site


def remember(
    context: Context, text: str, sites: Sequence[Site], rungs: Sequence[Rung], static: Static | None
) -> None:
    """Keep the rung of every site, with its range.

    Args:
        text: the pass with its options.
    """
    if context.chosen is None:
        return
    for key, site, rung in zip(_keys(text, sites), sites, rungs, strict=True):
        mapping = static.mappings[str(site.activation.name)] if static is not None else None
        context.chosen[key] = rung, mapping, None if static is None else replace(static, mappings={})


def remembered(
    context: Context, text: str, sites: Sequence[Site]
) -> tuple[tuple[Rung, ...], Static | None] | None:
    """What was chosen for these layers in another graph; None where it wasn't for every one."""
    kept = [(context.chosen or {}).get(key) for key in _keys(text, sites)]
    rungs, mappings, static = [], {}, None
    for site, each in zip(sites, kept, strict=True):
        if each is None:
            return None
        rung, mapping, static = each
        rungs.append(rung)
        mappings[str(site.activation.name)] = mapping
    return tuple(rungs), None if static is None else replace(static, mappings=mappings)


def _keys(text: str, sites: Sequence[Site]) -> list[tuple[Any, ...]]:
    """What names a site in every graph of a program: its weights, and which of their uses it is."""
    uses: Counter[tuple[str, ...]] = Counter()
    keys = []
    for site in sites:
        weights = tuple(str(product.weight.name) for product in site.products)
        uses[weights] += 1
        keys.append((text, weights, uses[weights]))
    return keys

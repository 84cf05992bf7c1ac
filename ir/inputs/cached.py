"""Sizes that go together: a mask over a cache is as long as what is cached and the new tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..program import Program
from ..spec import MASKS, UNBOUNDED


@dataclass(frozen=True)
class Cache:
    """past: the symbol of the cached tokens. mask: that of the mask over them and the new ones. tokens: how
    many those are, or their symbol."""

    past: str
    mask: str
    tokens: int | str


def cache_of(program: Program) -> Cache | None:
    """How a decoder's step takes its cache; None where it takes none, or more than one length of them."""
    ids = next((spec for spec in program.inputs if spec.role == "token_ids" and len(spec.shape) == 2), None)
    masks = [spec for spec in program.inputs if spec.role in MASKS and len(spec.shape) == 2]
    if ids is None or len(masks) != 1:
        return None
    batch, tokens = ids.shape
    mask = masks[0].shape[1]
    states = [spec for spec in program.inputs if spec.role == "other" and len(spec.shape) > 2]
    pasts = {dim for spec in states for dim in spec.shape if isinstance(dim, str)} - {batch, tokens}
    if not isinstance(mask, str) or mask == tokens or len(pasts - {mask}) != 1:
        return None
    return Cache(pasts.difference({mask}).pop(), mask, tokens)


def settled(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of a program's symbols whose mask is as long as its cache and tokens."""
    cache = cache_of(program)
    if cache is None:
        return dict(sizes)
    tokens = cache.tokens if isinstance(cache.tokens, int) else sizes[cache.tokens]
    _, longest = program.symbols.get(cache.mask, (1, UNBOUNDED))
    past = min(sizes[cache.past], longest - tokens)
    return {**sizes, cache.past: past, cache.mask: past + tokens}

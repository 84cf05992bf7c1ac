"""Which keys a query sees, and how much of each it takes, in a full attention."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .kind import Heads, Seen


def shown(heads: Heads) -> Tensor | None:
    """bool (batch or 1, 1, length or 1, length): keys that are tokens and no later ones; None where all
    are."""
    found = None
    if heads.causal:
        places = torch.arange(heads.q.shape[2])
        found = (places[None] <= places[:, None])[None, None]
    if heads.keep is not None:
        tokens = heads.keep[:, None, None]
        found = tokens if found is None else found & tokens
    return found


def scores(heads: Heads) -> Tensor:
    """(batch, heads, length, length), nothing hidden."""
    return heads.q @ heads.k.transpose(2, 3) * heads.scale


def softmax(logits: Tensor, seen: Tensor | None) -> Tensor:
    """Over the keys that are seen; a row that sees none gives the mean over all."""
    if seen is not None:
        logits = torch.where(seen, logits, torch.finfo(logits.dtype).min)
    return logits.softmax(-1)


def rows(seen: Seen) -> Iterator[tuple[Tensor, Tensor]]:
    """(float64 (heads, tokens, tokens), float64 (tokens, hidden)) of each text: its full attention, and what
    its queries are projected from, without padding."""
    for heads in seen():
        maps = softmax(scores(heads), shown(heads))
        for row in range(len(maps)):
            kept = heads.keep[row] if heads.keep is not None else slice(None)
            yield maps[row][:, kept][:, :, kept].double(), heads.x[row][kept].double()

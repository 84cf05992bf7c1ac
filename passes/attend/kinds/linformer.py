"""Fewer keys and values: each is a weighed mean of a text's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..parts.kind import Heads, Mixing, Seen
from ..parts.places import places
from ..parts.site import Site
from ..parts.write import parameter

_NOTHING = 1e-20  # of a weight that is to learn; `recover` keeps zeros
_LEAST = 1e-30


@dataclass(frozen=True)
class Linformer(Mixing):
    """softmax(q (E K)^T) F V, E and F of `rank` rows over the places of a text (Wang et al., 2020,
    arXiv:2006.04768, equation 7): time and memory linear in the length.

    A text of n tokens takes the first n columns; padding takes none. What a row then lacks of its weight it
    is divided by, and its logarithm is added to the row's scores: a mean stands for as many keys as it is of,
    and a row without any for none. So a rank of n is full attention, and short texts lose nothing.

    E and F begin as means of neighbours, of equally many tokens, where texts are given, as they show how long
    texts are; else of equally many places.

    rank: rows. length: places; where None, the longest text that the model takes. Tokens beyond share the
    last column.
    """

    looks_back: ClassVar[bool] = False

    rank: int = 128
    length: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("length", self.length)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, and 1 at least")

    def unfit(self, site: Site) -> str:
        if site.more or self.length is not None or site.longest is not None:
            return site.more
        return "nothing says how long its texts may be: give length, the longest one in tokens"

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        longest = self.length or site.longest
        assert longest is not None  # else it is unfit
        rank = min(self.rank, longest)
        tokens = torch.ones(longest) if seen is None else _tokens(seen, longest)
        table = torch.full((longest, rank), _NOTHING)
        table[torch.arange(longest), _segments(tokens, rank)] = 1.0
        return {"keys": parameter(table), "values": parameter(table)}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        place, _ = places(heads)
        k, weight = _projected(heads.k, own["keys"], place, heads.keep)
        v, _ = _projected(heads.v, own["values"], place, heads.keep)
        scores = heads.q @ k.transpose(2, 3) * heads.scale + weight.log().transpose(2, 3)
        return scores.softmax(-1) @ v


def _projected(x: Tensor, table: Tensor, place: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """((batch, heads, rank, size), (batch or 1, 1, rank, 1)): means of x over a text, and what they weigh."""
    rows = functional.embedding(place.clamp(max=table.shape[0] - 1), table)
    if keep is not None:
        rows = rows * keep[:, :, None].to(rows.dtype)
    rows = rows.transpose(1, 2)[:, None]
    weight = rows.abs().sum(-1, keepdim=True).clamp(min=_LEAST)
    return (rows @ x) / weight, weight


def _tokens(seen: Seen, longest: int) -> Tensor:
    """(longest,): how many tokens texts have at each place."""
    counts = torch.zeros(longest)
    for heads in seen():
        _, many = places(heads)
        ends = many.flatten().clamp(max=longest)
        times = heads.q.shape[0] // len(ends)
        counts += (torch.arange(longest)[None] < ends[:, None]).sum(0) * times
    return counts


def _segments(tokens: Tensor, rank: int) -> Tensor:
    """int64 (places,): which segment each place is in, none empty: half of them by tokens, half by places."""
    count = len(tokens)
    shares = tokens.double() / tokens.sum() + 1 / count
    wanted = ((shares.cumsum(0) - shares / 2) / 2 * rank).long()
    found, last = [], -1
    for number, segment in enumerate(wanted.tolist()):
        least = rank - (count - number)  # a place is left for each segment behind
        last = max(min(segment, last + 1), least, last, 0)
        found.append(last)
    return torch.tensor(found)

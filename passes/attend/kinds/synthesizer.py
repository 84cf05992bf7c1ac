"""Attention whose weights come from no pairs of queries and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..parts.kind import Heads, Mixing, Seen
from ..parts.maps import rows, scores, shown, softmax
from ..parts.neighbours import fitted
from ..parts.places import places
from ..parts.site import Site
from ..parts.write import parameter

_FORMS = ("dense", "random", "factorised-dense", "factorised-random")
_STARTS = ("vanilla", "even")
_LEAST = 1e-5  # of a mean probability, so that its logarithm is finite
_SPARE = 24  # singular vectors that are drawn beside those that are wanted
_VANILLA = 16.0  # what the vanilla one's logit is ahead, of a mixture that starts so


@dataclass(frozen=True)
class Synthesizer(Mixing):
    """softmax(B) v (Tay et al., 2020, arXiv:2005.00743), of as many weights as full attention has.

    "random": B holds a number for every pair of places, learned or not (section 3.1.2), at first the
    logarithm of the mean attention map of the texts; places that no text has take that of their distance.
    "dense": a row of B is W relu(V x) + b of what its place holds (equation 1), at first the least-squares
    map to those logarithms: V starts as x beside -x. "factorised-": the numbers of the table, or W, are a
    product of two narrow ones, at first the truncated singular value decomposition (section 3.1.4; its dense
    form tiles two vectors by product instead, for which least squares has no start).

    With mixture B is a learned mean of that and of the scores (section 3.1.5). Start "vanilla" is full
    attention, within 1e-5, and best before `distill`, whose steps do not depend on how small a derivative is;
    "even" is half of both.

    form, trained (of random ones), mixture, start: as above. rank: of factorised ones.
    length: places; where None, the longest text that the model takes. Tokens beyond share the last one.
    """

    needs_texts: ClassVar[bool] = True

    form: str = "random"
    trained: bool = True
    mixture: bool = False
    start: str = "vanilla"
    rank: int = 8
    length: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("form", _FORMS), ("start", _STARTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and there is {', '.join(known)}")
        for name in ("rank", "length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, and 1 at least")
        if not self.trained and self.form != "random":
            raise ValueError(f"trained is False, and form {self.form!r} is one that learns")

    def unfit(self, site: Site) -> str:
        if site.more or self.length is not None or site.longest is not None:
            return site.more
        return "nothing says how long its texts may be: give length, the longest one in tokens"

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        length = self.length or site.longest
        assert seen is not None
        assert length is not None
        tables = mean_logarithms(seen, length, site.causal)
        found: dict[str, Tensor] = {}
        if self.form == "random":
            found["table"] = torch.cat([table.float() for table in tables], 1)
        elif self.form == "factorised-random":
            left, right = zip(*(_factors(table, self.rank) for table in tables), strict=True)
            found["left"], found["right"] = torch.cat(left, 1), torch.stack(right)
        else:
            weight, found["bias"] = _predicted(seen, torch.stack(list(tables)), site.causal)
            eye, weight = torch.eye(len(weight)), torch.cat([weight, -weight])
            found["first"] = torch.cat([eye, -eye], 1)
            if self.form == "dense":
                found["second"] = weight
            else:
                found["left"], found["right"] = _factors(weight, self.rank)
        if self.mixture:
            found["mixture"] = torch.tensor([_VANILLA if self.start == "vanilla" else 0.0, 0.0])
        fixed = () if self.trained else ("table",)
        return {name: x if name in fixed else parameter(x) for name, x in found.items()}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        place, _ = places(heads)
        logits = self._rows(heads, own, place)
        columns = place.clamp(max=logits.shape[-1] - 1)[:, None, None]
        logits = logits.gather(3, columns.expand(*logits.shape[:3], columns.shape[-1]))
        if self.mixture:
            share = own["mixture"].softmax(0)
            logits = share[0] * scores(heads) + share[1] * logits
        return softmax(logits, shown(heads)) @ heads.v

    def _rows(self, heads: Heads, own: Mapping[str, Tensor], place: Tensor) -> Tensor:
        """(batch, heads, length, places)."""
        count, length = heads.q.shape[1], heads.q.shape[2]
        if "first" in own:
            hidden = (heads.x @ own["first"]).relu()
            found = hidden @ own["second"] if "second" in own else hidden @ own["left"] @ own["right"]
            found = found + own["bias"]
        else:
            table = own["table"] if "table" in own else own["left"]
            found = functional.embedding(place.clamp(max=table.shape[0] - 1), table)
        found = found.reshape(found.shape[0], length, count, -1).transpose(1, 2)
        return found if "first" in own or "table" in own else found @ own["right"]


def mean_logarithms(seen: Seen, length: int, causal: bool) -> Iterator[Tensor]:
    """float64 (length, length), a head after the other: logarithms of the mean attention from place to place;
    where no text has both, of the mean at that distance, or at the opposite one."""
    totals: list[Tensor] = []
    count = torch.zeros(length, length, dtype=torch.float64)
    for maps, _ in rows(seen):
        size = min(length, maps.shape[1])
        totals = totals or [torch.zeros_like(count) for _ in maps]
        for total, found in zip(totals, maps, strict=True):
            total[:size, :size] += found[:size, :size]
        ones = torch.ones(size, size, dtype=torch.float64)
        count[:size, :size] += ones.tril() if causal else ones
    away = (torch.arange(length)[:, None] - torch.arange(length) + length - 1).flatten()
    zeros = torch.zeros(2 * length - 1, dtype=torch.float64)
    counts = zeros.index_add(0, away, count.flatten())
    opposite = counts == 0
    counts = (counts + opposite * counts.flip(0)).clamp(min=1)
    while totals:  # each is let go before the next: one of 8,192 places is half a gigabyte
        total = totals.pop(0)
        sums = zeros.index_add(0, away, total.flatten())
        sums += opposite * sums.flip(0)
        mean = (sums / counts)[away].view_as(total)
        yield torch.where(count > 0, total.div_(count.clamp(min=1)), mean).clamp_(min=_LEAST).log_()


def _predicted(seen: Seen, table: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """(hidden, heads * places) and a bias: from what places hold to the logarithms of their attention."""
    length = table.shape[1]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for maps, x in rows(seen):
            size = min(length, len(x))
            wanted = table[:, :size].clone()
            own = maps[:, :size, :size].clamp(min=_LEAST).log()
            later = torch.ones(size, size, dtype=torch.bool).triu(1) & causal
            wanted[:, :, :size] = torch.where(later, wanted[:, :, :size], own)
            yield x[:size], wanted.transpose(0, 1).flatten(1)

    return fitted(pairs())


def _factors(table: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A product of a rank as near to a matrix as there is, (rows, rank), (rank, columns): drawn subspaces
    (Halko et al., 2011, arXiv:0909.4061), for all of 8,192 places' singular values would take hours."""
    rank = min(rank, *table.shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left, size, right = torch.svd_lowrank(table.double(), min(rank + _SPARE, *table.shape), niter=8)
    root = size[:rank].sqrt()
    return (left[:, :rank] * root).float(), (root[:, None] * right.T[:rank]).float()

"""Some heads attend to all, the others convolve their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..parts.kind import Heads, Mixing, Seen
from ..parts.maps import scores, shown, softmax
from ..parts.neighbours import convolved
from ..parts.site import Site
from ..parts.write import parameter
from .conv import logits, started


@dataclass(frozen=True)
class Lsra(Mixing):
    """Long-short range attention (Wu et al., 2020, arXiv:2004.11886, section 4): a share of the heads is a
    convolution as kind=conv has it, the others attend as before.

    Which ones convolve is measured: those whose values move least on the texts, relative to their size. Their
    scores are computed no more; their queries and keys still are. A share of 0 is full attention, one of 1
    kind=conv.

    share: of the heads that convolve. kernel, dynamic: as in kind=conv.
    """

    needs_texts: ClassVar[bool] = True

    share: float = 0.5
    kernel: int = 31
    dynamic: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, and 0 to 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}, and an odd number of places")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        assert seen is not None  # it needs texts
        found = started(seen, self.kernel, site.causal, self.dynamic)
        order = _errors(seen, found, self.kernel).argsort(descending=True, stable=True)
        local = order[len(order) - self._count(len(order)) :].sort()[0]
        wide = order[: len(order) - len(local)].sort()[0]
        if self.dynamic:
            parts = (local[:, None] * self.kernel + torch.arange(self.kernel)).flatten()
            found = {name: parameter(tensor.detach()[..., parts]) for name, tensor in found.items()}
        else:
            found = {"kernels": parameter(found["kernels"].detach()[local])}
        return {**found, "wide": wide, "local": local, "places": torch.cat([wide, local]).argsort()}

    def _count(self, heads: int) -> int:
        return round(self.share * heads)

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        count, total = self._count(heads.q.shape[1]), heads.q.shape[1]
        found = []
        if count < total:
            q, k, v = (x.index_select(1, own["wide"]) for x in (heads.q, heads.k, heads.v))
            found.append(softmax(scores(replace(heads, q=q, k=k, v=v)), shown(heads)) @ v)
        if count:
            v = heads.v.index_select(1, own["local"])
            found.append(convolved(heads, v, logits(heads, own, self.kernel), self.kernel))
        return torch.cat(found, 1).index_select(1, own["places"])


def _errors(seen: Seen, own: Mapping[str, Tensor], width: int) -> Tensor:
    """float64 (heads,): the squared distance of a head's values from full attention's, relative to their
    size."""
    away: Tensor | float = 0.0
    size: Tensor | float = 0.0
    with torch.no_grad():
        for heads in seen():
            wanted = softmax(scores(heads), shown(heads)) @ heads.v
            found = convolved(heads, heads.v, logits(heads, own, width), width)
            kept = 1.0 if heads.keep is None else heads.keep[:, None, :, None].double()
            away = away + ((found - wanted).double().square() * kept).sum((0, 2, 3))
            size = size + (wanted.double().square() * kept).sum((0, 2, 3))
    assert isinstance(away, Tensor)
    assert isinstance(size, Tensor)
    return away / size.clamp(min=1e-30)

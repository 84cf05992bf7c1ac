"""Keys that hash like the query: sorted by bucket, so that they stand near to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.gathered import LOW, tokens
from ..parts.kind import Heads, Mixing, Seen
from ..parts.site import Site
from ..parts.sorted import Bucketed

_COLUMNS = 64  # rotations at most where their number follows the length; each makes two buckets
_BACK = 16  # buckets where it cannot


@dataclass(frozen=True)
class Lsh(Mixing):
    """Reformer's attention (Kitaev et al., 2020, arXiv:2001.04451, section 2, appendix A).

    A vector's bucket is the largest of [x R, -x R]. Queries and keys are sorted by bucket, then by place, and
    cut into blocks that see themselves and the block before; rounds, each with rotations R of its own, are
    joined to one softmax over all the keys that any of them shows, each counted once.

    Looking back only, a token may not depend on how later ones hash, and these move the paper's blocks: there
    a query sees the last keys of its own bucket, `block` on average.

    block: keys to a block. rounds: of hashing. buckets: of a round, 1 or even; 0: two for each block that the
    text fills (the paper's number), 128 at most, and 16 in models that look back only, where a text's first
    tokens cannot know its length. shared_qk: keys are queries of unit length, unscaled, and a token sees
    itself only where it sees nothing else (for a model that is trained so). Otherwise keys stay what they are
    and every token sees itself; vectors are hashed less their mean over the text, because queries and keys
    lie in different places, and a shift of all keys changes no softmax.
    """

    block: int = 64
    rounds: int = 2
    buckets: int = 0
    shared_qk: bool = False

    def __post_init__(self) -> None:
        for name in ("block", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and 1 at least")
        if self.buckets < 0 or (self.buckets % 2 and self.buckets != 1):
            raise ValueError(f"buckets is {self.buckets}: 1, an even number, or 0 to follow the length")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        shape = site.attention.query.shape or ()
        width = int(shape[site.attention.layouts[0].index("d")])  # type: ignore[arg-type]
        columns = self.buckets // 2 or (_BACK // 2 if site.causal else _COLUMNS)
        return {"rotations": torch.randn(self.rounds, width, columns, generator=generator)}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        keep, count = tokens(heads)
        q, k, scale = heads.q, heads.k, heads.scale
        if self.shared_qk:
            k, scale = q * torch.rsqrt((q * q).sum(-1, keepdim=True) + 1e-12), 1.0
            of_key = of_query = self._buckets(q, own["rotations"], keep, count, heads.causal)
        else:
            of_query, of_key = (self._buckets(x, own["rotations"], keep, count, heads.causal) for x in (q, k))
        found = Bucketed(q, k, heads.v, of_query, of_key, count, scale, self.shared_qk)
        return found.last(self.block) if heads.causal else found.blocks(self.block)

    def _buckets(self, x: Tensor, rotations: Tensor, keep: Tensor, count: Tensor, causal: bool) -> Tensor:
        """int64 (batch, heads, rounds, length); padding has one behind all others."""
        columns = rotations.shape[2]
        if self.buckets == 1:
            bucket = torch.zeros(1, dtype=torch.int64)
        else:
            if not causal and not self.shared_qk:
                sums = torch.where(keep[:, None, :, None], x, 0.0).sum(2, keepdim=True)
                x = x - sums / count.clamp(min=1)[:, None, None]
            turned = x.unsqueeze(2) @ rotations
            found = torch.cat([turned, -turned], -1)
            if self.buckets == 0 and not causal:
                used = ((count + self.block - 1) // self.block)[:, None, None, None]
                found = torch.where(torch.arange(2 * columns) % columns < used, found, LOW)
            bucket = found.argmax(-1)
        shape = (x.shape[0], x.shape[1], self.rounds, x.shape[2])
        return torch.where(keep[:, None, None, :], bucket, 2 * columns).expand(shape)

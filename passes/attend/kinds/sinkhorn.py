"""Blocks of keys sorted to the blocks of queries that they are of use to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts.gathered import LOW, attended, inverse, rows, tokens, within
from ..parts.kind import Heads, Mixing, Seen
from ..parts.site import Site
from ..parts.write import parameter

_NEAR = 4.0  # what the block before has over all others at first


@dataclass(frozen=True)
class Sinkhorn(Mixing):
    """Sparse Sinkhorn attention (Tay et al., 2020, arXiv:2002.11296, section 3).

    A block of queries sees its own keys and those of one sorted block, a mean over blocks with the weights of
    a matrix that is made doubly stochastic. Its logits are (W mean q) . (mean k) of blocks, and a number for
    the block before; W and that number learn, and start as the identity and as what makes the block before
    the sorted one. (The paper's network has an output for each block of a fixed length.) A place of the
    sorted block counts as much as of it is text. Nothing is drawn: Gumbel's noise is for training alone.

    Looking back only, the sorted block comes from those before, chosen by all queries before the block.

    block: tokens. iterations: of Sinkhorn's normalisation. temperature: divides logits.
    """

    block: int = 64
    iterations: int = 5
    temperature: float = 0.75

    def __post_init__(self) -> None:
        for name, least in (("block", 1), ("iterations", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, and {least} at least")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, and must be above 0")

    def own(self, site: Site, seen: Seen | None, generator: torch.Generator) -> Mapping[str, Tensor]:
        axis = site.attention.layouts[0].index
        shape = site.attention.query.shape or ()
        heads, width = int(shape[axis("h")]), int(shape[axis("d")])  # type: ignore[arg-type]
        near = torch.full((heads, 1, 1), _NEAR * self.temperature)
        return {"sort": parameter(torch.eye(width).expand(heads, -1, -1)), "near": parameter(near)}

    def mix(self, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        keep, count = tokens(heads)
        batch, many, length, _ = heads.q.shape
        size = self.block
        blocks = (length + size - 1) // size
        places = torch.arange(length)
        order = torch.sort(torch.where(keep, places, places + length), dim=1, stable=True)[1]
        at = torch.arange(blocks * size)
        index = order.index_select(1, within(at, length)).unsqueeze(1).expand(batch, many, blocks * size)
        live = (at < count).reshape(batch, 1, blocks, size)
        q, k, v = (
            torch.where(live.unsqueeze(4), rows(x, index).reshape(batch, many, blocks, size, -1), 0.0)
            for x in (heads.q, heads.k, heads.v)
        )
        matrix = self._matrix(q, k, live.to(q.dtype), heads, own)
        share = matrix @ live.to(q.dtype)
        mean = share.clamp(min=1e-9).unsqueeze(4)
        k, v = (torch.cat([x, _sorted(matrix, x) / mean], 3) for x in (k, v))
        counts = torch.cat([live.to(q.dtype).expand(batch, many, -1, -1), share], 3)
        counts = torch.where(counts > 1e-9, torch.log(counts.clamp(min=1e-9)), LOW)
        scores = q @ k.transpose(3, 4) * heads.scale + counts.unsqueeze(3)
        if heads.causal:
            at_key = torch.arange(2 * size)  # the sorted block lies before
            scores = torch.where((at_key >= size) | (at_key <= torch.arange(size)[:, None]), scores, LOW)
        values, _ = attended(scores, v)
        back = inverse(order).unsqueeze(1).expand(batch, many, length)
        return rows(values.reshape(batch, many, blocks * size, -1), back)

    def _matrix(self, q: Tensor, k: Tensor, live: Tensor, heads: Heads, own: Mapping[str, Tensor]) -> Tensor:
        """(batch, heads, blocks, blocks), how much of each block of keys a block of queries sees."""
        tokens = live.sum(3, keepdim=True)
        keys = k.sum(3) / tokens.clamp(min=1)
        queries, before = q.sum(3), tokens
        if heads.causal:
            queries, before = queries.cumsum(2) - queries, tokens.cumsum(2) - tokens
        queries = queries / before.clamp(min=1)
        block = torch.arange(live.shape[2])
        real = tokens > 0
        used = real.to(torch.int64).sum(2, keepdim=True)
        shown = real & real.transpose(2, 3)
        if heads.causal:
            shown = shown & (block < block[:, None])
        last = (block[:, None] + used - 1) - torch.where(block[:, None] > 0, used, 0)
        logits = queries @ own["sort"] @ keys.transpose(2, 3) * heads.scale
        logits = (logits + torch.where(block == last, own["near"], 0.0)) / self.temperature
        logits = torch.where(shown, logits, LOW)
        for _ in range(self.iterations):
            logits = torch.where(shown, logits - _log_sum(logits, 3), LOW)
            over = torch.exp(logits).cumsum(2).clamp(min=1e-30).log() if heads.causal else _log_sum(logits, 2)
            logits = torch.where(shown, logits - over, LOW)
        return torch.exp(torch.where(shown, logits - _log_sum(logits, 3), LOW))


def _log_sum(x: Tensor, axis: int) -> Tensor:
    most = x.amax(axis, keepdim=True)
    return most + torch.log(torch.exp(x - most).sum(axis, keepdim=True))


def _sorted(matrix: Tensor, x: Tensor) -> Tensor:
    batch, heads, blocks, size, width = x.shape
    flat = x.reshape(batch, heads, blocks, size * width)
    return (matrix @ flat).reshape(batch, heads, blocks, size, width)

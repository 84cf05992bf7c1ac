"""What a kernel of attention computes: heads, where they lie, masks, precision."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rows import Finish


@dataclass(frozen=True)
class Columns:
    """A matrix's columns [at, at + heads * dim) hold the heads. width: its columns in all."""

    width: int
    at: int = 0


@dataclass(frozen=True)
class Attention:
    """heads of queries; kv_heads divide them (grouped queries, arXiv:2305.13245). dim: of queries and keys,
    value_dim: of values. scale: of the products. softcap: scaled scores x become softcap * tanh(x / softcap)
    before anything is added; 0 leaves them. causal: query i of n sees the keys up to i + keys - n.
    keys: the most that a sequence has. bias: what is added to the scores: None, or its axes that are 1, of
    (batch, heads): an additive mask for sequences that all have `keys` keys. A query from which it hides all
    keys gets zeros where it does that with -inf, the mean of all values where with a finite number.
    bfloat16: queries, keys, probabilities and values are rounded to it, queries and keys after they were
    multiplied by these numbers; None multiplies float32.
    """

    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    scale: float
    keys: int
    q: Columns
    k: Columns
    v: Columns
    causal: bool = False
    bias: tuple[bool, bool] | None = None
    finish: Finish = field(default_factory=Finish)
    softcap: float = 0.0
    bfloat16: tuple[float, float] | None = None

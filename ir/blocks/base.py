"""What a Transformer is made of. Blocks are results of analysis: found anew, never stored in a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..view import Value


@dataclass(frozen=True)
class Miss:
    """Something that looked like a block and was not taken, and why."""

    kind: str
    node: str
    reason: str


@dataclass(frozen=True)
class Linear:
    """y = x W (+ b). `root` is the value with the bias added.

    transposed: the weight is stored (out, in), as PyTorch does, instead of (in, out).
    """

    root: Value
    input: Value
    weight: Value
    bias: Value | None
    in_features: int
    out_features: int
    transposed: bool


@dataclass(frozen=True)
class Norm:
    """LayerNorm, RMSNorm or NoNorm over the last axis, in one op or decomposed.

    body: every value computed inside, `root` included.
    position: "pre" when the residual stream is its input and a sub-layer its user, "post" when a residual
    sum is its input and it *is* the stream, "embedding", "final" or "inner" (q/k norms).
    """

    kind: Literal["layer_norm", "rms_norm", "no_norm"]
    root: Value
    input: Value
    weight: Value | None
    bias: Value | None
    epsilon: float
    position: Literal["pre", "post", "embedding", "final", "inner", "other"]
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Attention:
    """softmax(scale * query key^T + mask) value, with its projections.

    query, key, value: (batch, heads, length, head_dim), as they enter the scores, rotary included.
    q, k, v, o: the projections; one fused projection appears as the same Linear in q, k and v.
    context: (batch, length, heads * head_dim), before the output projection. root: after it.
    mask: what is added to the scores or selects them, before broadcasting; None if there is none.
    causal: positions only look back, whether by flag or by the mask's own construction.
    rotary: the query and key are rotated by position. relative_bias: position bias inside the mask.
    body: every value from the projections' results to context, scores and probabilities included.
    """

    root: Value
    context: Value
    query: Value
    key: Value
    value: Value
    q: Linear | None
    k: Linear | None
    v: Linear | None
    o: Linear | None
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    mask: Value | None
    mask_kind: Literal["none", "add", "bool"]
    causal: bool
    rotary: bool
    relative_bias: Value | None
    cross: bool
    body: tuple[Value, ...]


@dataclass(frozen=True)
class FeedForward:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) when gated. root: after `down`."""

    root: Value
    input: Value
    up: Linear
    gate: Linear | None
    down: Linear
    activation: str
    width: int
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Embedding:
    """Tables looked up by ids and added: words, positions, types. root: the sum, before any norm."""

    root: Value
    tables: tuple[Value, ...]
    ids: tuple[Value, ...]
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Residual:
    """stream + branch. branch comes out of `of` ("attention", "feed_forward" or "other")."""

    root: Value
    stream: Value
    branch: Value
    of: str


@dataclass(frozen=True)
class Stack:
    """Repeated layers: attentions and feed-forwards of one structure, in order."""

    layers: tuple[tuple[Attention | FeedForward, ...], ...]


@dataclass(frozen=True)
class Blocks:
    """Everything recognised in one graph, each list in topological order, and every miss with its reason."""

    attention: tuple[Attention, ...] = ()
    feed_forward: tuple[FeedForward, ...] = ()
    norm: tuple[Norm, ...] = ()
    embedding: tuple[Embedding, ...] = ()
    residual: tuple[Residual, ...] = ()
    stack: tuple[Stack, ...] = ()
    linear: tuple[Linear, ...] = ()
    missed: tuple[Miss, ...] = field(default=())

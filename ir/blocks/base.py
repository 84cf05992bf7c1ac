"""What a Transformer is made of. Blocks are results of analysis: found anew, never stored in a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..values import Value

Position = Literal["pre", "post", "embedding", "final", "inner", "other"]


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
    axis: where the features are in `input` and `root`: -1, or 1 for a convolution over single positions,
    whose weight is (out, in / groups, 1).
    groups: the features fall into this many blocks that do not see each other (1: an ordinary product).
    body: what is computed inside, `root` included, with the flattening and unflattening of rows around it.
    """

    root: Value
    input: Value
    weight: Value
    bias: Value | None
    in_features: int
    out_features: int
    transposed: bool
    axis: int = -1
    groups: int = 1
    body: tuple[Value, ...] = ()


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
    position: Position
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Attention:
    """softmax(scale * query key^T + terms) value, with its projections.

    query, key, value: as they enter the scores and the context, rotary included, repeated heads included
    where the graph repeats them; layouts says where their axes are, for each of the three: b(atch), h(eads),
    l(ength), d (head size), as in "bhld"; "bhdl" is a key stored transposed, "(bh)ld" has batch and heads
    merged, "bld" is a single head.
    context: the heads merged into one axis, before the output projection: (batch, length, heads * head_dim),
    or whatever order of rows the graph merges them in. Where other heads are put beside them before that, or
    something is added (heads.met), it has the four axes that they have there, and there is no `o`.
    root: after the output projection, and where that is of low rank (low_rank.py), after its second factor.
    q, k, v, o: the projections; one fused projection appears as the same Linear in q, k and v.
    q_features, k_features, v_features: which output features of q, k and v are used, by (head, head_dim),
    shape (heads, head_dim) or (kv_heads, head_dim); None without a projection.
    scale: the number that multiplies the product of what q and k project, in all: factors on the way from
    there included. operand_scale: the one that multiplies query key^T; smaller steps may be inside those.
    mask: what is added to the scores or selects them, before broadcasting; None if there is none.
    mask_kind: "add", or "bool"; mask_keeps: a bool mask is True where a key is kept (False: where hidden);
    mask_factor: an additive mask is multiplied by this before it is added (-1: it is subtracted).
    causal: positions only look back, whether by flag or by the mask's own construction; is_causal: by flag,
    so that no mask says it.
    rotary: the query and key are rotated by position. q_norm, k_norm: norms of query and key, per head.
    relative_bias: a learned position bias that is added to the scores, on its own or inside `mask`; it may
    depend on what the tokens hold (WavLM: Chen et al., 2021, arXiv:2110.13900, gates it).
    terms: (factor, value) of everything added to the scaled scores, in order: biases and additive masks. A
    bool mask may be written into a term (T5) instead of over the scores; selected: over the scores.
    softcap: the scaled scores x become softcap * tanh(x / softcap) before anything is added (Gemma 2: Gemma
    Team, 2024, arXiv:2408.00118, section 2); 0 where they are not capped.
    gate: a mask of ones and zeros that multiplies the scores before terms are added, which hide each key
    where it is 0 (GPT: Radford et al., 2018). None but there.
    sinks: learned scores (..., queries or 1, a few) that stand after the keys' under the softmax and weigh no
    values, one a head in gpt-oss (OpenAI, 2025, arXiv:2508.10925). None but there.
    products: products inside of terms, of queries or keys with positions (Transformer-XL: Dai et al., 2019,
    arXiv:1901.02860; DeBERTa: He et al., 2020, arXiv:2006.03654); such terms count as relative_bias.
    shifted: a vector is added to queries, keys or values after their projection (and its bias).
    cross: keys and values come from another stream than queries.
    probabilities: the softmax's result, sinks included. scored, weighed: the products of queries and keys,
    and of probabilities and values. None inside a single operator.
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
    operand_scale: float = 1.0
    mask_keeps: bool = True
    is_causal: bool = False
    mask_factor: float = 1.0
    terms: tuple[tuple[float, Value], ...] = ()
    selected: bool = False
    softcap: float = 0.0
    gate: Value | None = None
    sinks: Value | None = None
    products: tuple[Value, ...] = ()
    shifted: bool = False
    layouts: tuple[str, str, str] = ("bhld", "bhld", "bhld")
    q_features: np.ndarray | None = field(default=None, compare=False)
    k_features: np.ndarray | None = field(default=None, compare=False)
    v_features: np.ndarray | None = field(default=None, compare=False)
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    probabilities: Value | None = None
    scored: Value | None = None
    weighed: Value | None = None


@dataclass(frozen=True)
class FeedForward:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) when gated. root: after `down`.

    Of projections of low rank (low_rank.py), up, gate and down are the factors beside the activation.

    activation: relu, gelu, gelu_tanh, quick_gelu, silu, relu2, tanh, ... A bias that its operator adds (a
    fused GELU) is in the body, and up or gate have none. width: features of the activation.
    up_features, gate_features: (start, stop) of the output features that `up` and `gate` take; they differ
    from the whole where one Linear does both jobs (then `gate is up`).
    """

    root: Value
    input: Value
    up: Linear
    gate: Linear | None
    down: Linear
    activation: str
    width: int
    up_features: tuple[int, int]
    gate_features: tuple[int, int] | None
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Router:
    """The choice of experts for each token. root: the experts' results, weighed by it.

    linear: the projection to one score an expert. per_token: experts that each token is given to. scoring:
    what makes weights of scores ("softmax", "sigmoid", "none"). normalised: the weights of a token's experts
    are made to add up to one.
    """

    root: Value
    linear: Linear
    experts: int
    per_token: int
    scoring: str
    normalised: bool
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Experts:
    """A mixture of feed-forwards. root: the weighed sum, before it joins the stream.

    input: what the router and the experts read. up, down: weights, (experts, out, in) or (experts, in, out),
    or one an expert; `up` holds the gates too, where it is gated. activation: as of a FeedForward, "other"
    where it is none of those. width: features of the activation in each expert.
    """

    root: Value
    input: Value
    router: Router
    experts: int
    up: tuple[Value, ...]
    down: tuple[Value, ...]
    activation: str
    gated: bool
    width: int
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Embedding:
    """Tables looked up by ids and added: words, positions, types. root: the sum, before any norm.

    Over pixels or audio, tables are the weights of the convolutions and ids what they read.
    """

    root: Value
    tables: tuple[Value, ...]
    ids: tuple[Value, ...]
    body: tuple[Value, ...]


@dataclass(frozen=True)
class Residual:
    """stream + branch. branch comes out of `of` ("attention", "feed_forward", for experts too, "other")."""

    root: Value
    stream: Value
    branch: Value
    of: str


@dataclass(frozen=True)
class Stack:
    """Repeated layers: attentions and feed-forwards of one structure, in order.

    shared: all layers have the same weights.
    """

    layers: tuple[tuple[Attention | FeedForward, ...], ...]
    shared: bool = False


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
    experts: tuple[Experts, ...] = ()
    missed: tuple[Miss, ...] = field(default=())

    def summary(self) -> dict[str, int]:
        """How many blocks there are of each kind."""
        return {
            "attention": len(self.attention),
            "feed_forward": len(self.feed_forward),
            "experts": len(self.experts),
            "norm": len(self.norm),
            "embedding": len(self.embedding),
            "residual": len(self.residual),
        }

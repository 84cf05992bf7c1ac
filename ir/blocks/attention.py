"""Attention (Vaswani et al., 2017, arXiv:1706.03762), found from its softmax or its single operator.

From the anchor the middle is read off (`scores`), then each operand is followed to its projection, and
the context to the output projection (`heads`); masks are computed on an example to see whether positions
only look back (`mask`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..values import Value, View
from .base import Attention, Linear, Miss, Norm
from .heads import Heads, heads, merged
from .linear import grouped_source
from .low_rank import LowRank
from .mask import Masks
from .refused import Refused
from .scores import DEEPEST, Core, anchors, sdpa_core, selection, softmax_core
from .walk import Statics, bare

_KERNELS = {
    "ai.onnx::Attention",
    *(f"com.microsoft::{kind}Attention" for kind in ("", "MultiHead", "GroupQuery", "Q", "Packed", "Sparse")),
    *(f"com.microsoft::{kind}MultiHeadAttention" for kind in ("Packed", "DecoderMasked")),
}


def attentions(
    view: View, static: Statics, linears: Mapping[Value, Linear], norms: Mapping[Value, Norm]
) -> tuple[dict[Value, Attention], list[Miss]]:
    """Every Attention of a graph by its root, in topological order."""
    inputs: dict[Value, list[Linear]] = {}
    for linear in linears.values():
        inputs.setdefault(bare(linear.input), []).append(linear)
        inputs.setdefault(linear.input, []).append(linear)
    masks, pairs = Masks(linears), LowRank(view, linears)
    found: dict[Value, Attention] = {}
    missed: list[Miss] = []
    softmaxes = {probabilities: (scores, body) for probabilities, scores, body in anchors(list(view.values))}
    for value in view.values:
        if value.op in _KERNELS and value.index == 0:
            missed.append(Miss("attention", value.name, f"{value.op} is one kernel whose parts are not read"))
        if value.op != "sdpa" and value not in softmaxes:
            continue
        try:
            if value.op == "sdpa":
                core = sdpa_core(value)
            else:
                scores, body = softmaxes[value]
                _check_axis(value)
                core = softmax_core(value, scores, body, static)
            attention, notes = _attention(core, linears, norms, inputs, masks, static, pairs)
        except Refused as near:
            missed.append(Miss("attention", near.value.name, near.reason))
            continue
        found[attention.root] = attention
        missed += notes
    return found, missed


def _check_axis(softmax: Value) -> None:
    axis, rank = softmax.attrs.get("axis", -1), len(softmax.shape or ())
    if axis != -1 and rank and axis != rank - 1:
        raise Refused(softmax, f"softmax over axis {axis}, not over the keys (the last axis)")


def _attention(
    core: Core,
    linears: Mapping[Value, Linear],
    norms: Mapping[Value, Norm],
    inputs: Mapping[Value, list[Linear]],
    masks: Masks,
    static: Statics,
    pairs: LowRank,
) -> tuple[Attention, list[Miss]]:
    i, j, d, e = _letters(core)
    query = heads(core.query, i, d, linears, norms, static)
    key = heads(core.key, j, d, linears, norms, static)
    value = heads(core.value, j, e, linears, norms, static)
    if query.head_dim != key.head_dim:
        raise Refused(core.query.value, "query and key have heads of different sizes")
    k_features, v_features, kv_heads = _of_keys_and_values(key, value, query.heads)
    context, o, below = merged(core.context, query, core.query.letters, e, value.head_dim, inputs)
    added = _added(core, masks)
    causal, notes = _causal(core, added, masks)
    sides = (query, key, value)
    firsts = [pairs.before(side.linear) for side in sides if side.linear is not None]
    last = (pairs.after(o) or o) if o is not None else None
    ends = [one for one in (*firsts, o, last) if one is not None]
    inside = (*query.body, *key.body, *value.body, *core.body, *below, *(v for one in ends for v in one.body))
    sources = [
        bare(grouped_source(one.source, linears) if one.linear is None else pairs.source(one.linear))
        for one in sides[:2]
    ]
    attention = Attention(
        root=last.root if last is not None else context,
        context=context,
        query=query.value,
        key=key.value,
        value=value.value,
        q=query.linear,
        k=key.linear,
        v=value.linear,
        o=o,
        heads=query.heads,
        kv_heads=kv_heads,
        head_dim=query.head_dim,
        scale=core.scale * query.scale * key.scale,
        operand_scale=core.scale * query.outer * key.outer,
        mask=added.mask,
        mask_kind=added.kind,
        mask_keeps=added.keeps,
        mask_factor=added.factor,
        causal=causal,
        is_causal=core.is_causal,
        rotary=query.rotary and key.rotary,
        relative_bias=added.bias,
        terms=tuple(core.terms),
        selected=core.select is not None,
        softcap=core.softcap,
        gate=core.gate,
        sinks=core.sinks,
        products=tuple(product for _, term in core.terms for product in masks.products(term)),
        shifted=query.shifted or key.shifted or value.shifted,
        cross=sources[0] != sources[1],
        layouts=(query.layout, key.layout, value.layout),
        q_features=query.features,
        k_features=k_features,
        v_features=v_features,
        q_norm=query.norm,
        k_norm=key.norm,
        probabilities=core.probabilities,
        scored=core.scored,
        weighed=core.context.value if core.scored is not None else None,
        body=tuple(dict.fromkeys(inside)),
    )
    return attention, notes


def _of_keys_and_values(
    key: Heads, value: Heads, heads: int
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """(the keys' own features, the values', how many heads both have). Raises Refused."""
    if value.scale != 1 or value.rotary:
        raise Refused(value.value, "the values are scaled or rotated on their way to the scores' side")
    k_features, kv_heads = _grouped(key, heads)
    v_features, value_heads = _grouped(value, heads)
    unknown = [side for side in (key, value) if side.linear is None]
    if kv_heads != value_heads and unknown:
        source = unknown[0].source
        what = "keys" if unknown[0] is key else "values"
        reason = (
            f"its {what} come from '{source.name}' ({source.op}), not from one projection, so that repeated "
            "heads cannot be told from their own; an adapter must be merged into its weight first"
        )
        raise Refused(value.value, reason)
    if kv_heads != value_heads:
        raise Refused(value.value, f"{kv_heads} heads of keys but {value_heads} of values")
    return k_features, v_features, kv_heads


def _causal(core: Core, added: Added, masks: Masks) -> tuple[bool, list[Miss]]:
    """Whether positions look back alone, and a note where that can't be told."""
    causal = core.is_causal
    if core.gate is not None:
        if not masks.hides(core.gate, core.terms):
            raise Refused(core.gate, "the scores are multiplied by what is no mask of the keys hidden after")
        causal = causal or masks.reach(core.gate, False, True, 1.0).causal
    if added.mask is None or causal:
        return causal, []
    reach = masks.reach(added.mask, added.kind == "add", added.keeps, added.factor)
    why = f"cannot tell whether it is causal: {reach.why}"
    return reach.causal, [Miss("mask", added.mask.name, why)] if reach.why else []


def _letters(core: Core) -> tuple[str, str, str, str]:
    """The letters of queries, keys, head size, and head size of the values."""
    q, k, v, c = core.query.letters, core.key.letters, core.value.letters, core.context.letters
    shared = [x for x in q if x in k and x not in c]
    j = [x for x in k if x in v and x not in q and x not in c]
    i = [x for x in q if x in c and x not in k]
    e = [x for x in v if x in c and x not in q]
    if len(shared) != 1 or len(j) != 1 or len(i) != 1 or len(e) != 1:
        raise Refused(core.context.value, "the products do not sum over the head size and the keys")
    return i[0], j[0], shared[0], e[0]


def _grouped(side: Heads, count: int) -> tuple[np.ndarray | None, int]:
    """(features, heads) of keys or values before they were repeated for groups of queries."""
    if side.heads > count or count % side.heads:
        raise Refused(side.value, f"{side.heads} heads do not serve {count} of the query evenly")
    if side.features is None or side.heads < count:
        return side.features, side.heads
    distinct = list(dict.fromkeys(map(tuple, side.features.tolist())))
    if count % len(distinct) or not np.array_equal(
        np.repeat(np.array(distinct), count // len(distinct), axis=0), side.features
    ):
        raise Refused(side.value, "heads are repeated in another order than the groups of queries")
    return np.array(distinct), len(distinct)


@dataclass(frozen=True)
class Added:
    """What the terms over the scores amount to. kind, keeps, factor: as Attention's mask_*."""

    mask: Value | None = None
    kind: Literal["none", "add", "bool"] = "none"
    keeps: bool = True
    factor: float = 1.0
    bias: Value | None = None


def _added(core: Core, masks: Masks) -> Added:
    """Tell masks from learned biases among what is added to scores, and what selects them."""
    bias: Value | None = None
    found = Added()
    for factor, term in core.terms:
        inner, select = _unmasked(term, masks)
        if inner is not None:
            bias = bias or inner
        if select is not None:
            found = Added(_unexpanded(select[0]), "bool", select[1])
        elif inner is None or bare(inner) != bare(term):
            found = Added(_unexpanded(term), "add", True, factor)
    if core.select is not None:
        found = Added(_unexpanded(core.select[0]), "bool", core.select[1])
    return replace(found, bias=bias)


def _unexpanded(mask: Value) -> Value:
    """A mask before the broadcasting that the scores would do anyway."""
    mask = bare(mask)
    while mask.op == "expand" and mask.inputs[0] is not None:
        mask = bare(mask.inputs[0])
    return mask


def _unmasked(term: Value, masks: Masks) -> tuple[Value | None, tuple[Value, bool] | None]:
    """(learned bias, selection) of a term: bias, bias + mask, or a bias with large negatives written over.

    The bias is the term itself where no mask was put into it, and None where nothing learned is in it.
    """
    if not masks.learned(term):
        return None, None
    value = bare(term)
    for _ in range(DEEPEST):
        if value.op == "where":
            try:
                scores, select = selection(value)
            except Refused:
                break
            return scores, select
        a, b = [*value.inputs, None, None][:2]
        if value.op == "add" and a is not None and b is not None:
            first, second = masks.learned(a), masks.learned(b)
            if first != second:
                return (a if first else b), None
            break
        if value.op not in ("slice", "expand", "unsqueeze", "reshape") or value.inputs[0] is None:
            break
        value = bare(value.inputs[0])
    return bare(term), None

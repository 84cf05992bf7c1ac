"""Attention of one new token over cached keys and values, which go out with the new ones behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.blocks.base import Attention, Blocks, Linear
from ....ir.blocks.heads import Heads, heads
from ....ir.blocks.refused import Refused
from ....ir.blocks.scores import Factor
from ....ir.blocks.walk import Statics, bare
from ....ir.values import Value, sizes
from ..kernels.attention_spec import Columns
from ..kernels.cached_attention import CachedAttention, cached_attention
from .attend import bias_of, projected
from .chains import fits
from .dense import need
from .items import Item, Need
from .rotation import LAYOUT, Rotation, rotation
from .site import Site


@dataclass(frozen=True)
class Cached:
    """An attention over past and new keys and values.

    past, present: keys, then values, (batch, kv_heads, length, size); present are those joined. sides:
    projections of the new query, key and value, with the features used. turned: how query and key are.
    """

    attention: Attention
    past: tuple[Value, Value]
    present: tuple[Value, Value]
    sides: tuple[tuple[Linear, np.ndarray], ...]
    turned: Rotation | None


def cached(blocks: Blocks) -> dict[Value, Cached]:
    """The attentions that the kernel for one new token fits, by root."""
    linears = {linear.root: linear for linear in blocks.linear if fits(linear)}
    norms = {norm.root: norm for norm in blocks.norm}
    found = ((a.root, _cached(a, linears, norms)) for a in blocks.attention)
    return {root: each for root, each in found if each is not None}


def _cached(a: Attention, linears: Mapping[Value, Linear], norms: Mapping[Value, Any]) -> Cached | None:
    shape = a.query.shape
    one = a.layouts[0].endswith("hld") and shape is not None and len(shape) == 4 and shape[2] == 1
    if len(a.context.shape or ()) == 4:  # something else meets its heads
        return None
    if not one or a.q is None or a.q.root not in linears or a.q_features is None or a.q_norm is not None:
        return None
    inside = set(a.body)
    keys, values = (_joined(value, a.heads, inside) for value in (a.key, a.value))
    if (
        keys is None
        or values is None
        or a.relative_bias is not None
        or a.softcap
        or a.gate is not None
        or a.sinks is not None
        or a.shifted
    ):
        return None
    new = [joined.inputs[1] for joined in (keys, values)]
    sides: list[tuple[Linear, np.ndarray]] = [(a.q, a.q_features)]
    rotated = False
    for value in new:
        side = _heads(value, linears, norms)
        if (
            side is None
            or side.linear is None
            or side.features is None
            or side.norm
            or side.shifted
            or side.scale != 1
        ):
            return None
        rotated |= side.rotary
        assert value is not None
        sides.append((side.linear, side.features.reshape(sizes(value)[1], -1)))
    query, key = bare(a.query), bare(new[0]) if new[0] is not None else None
    turned = rotation(_unscaled(query))
    if (turned is None and (a.rotary or rotated)) or key is None or rotation(key) != turned:
        return None
    past = keys.inputs[0], values.inputs[0]
    assert past[0] is not None
    assert past[1] is not None
    return Cached(a, (past[0], past[1]), (keys, values), tuple(sides), turned)


def _heads(value: Value | None, linears: Mapping[Value, Linear], norms: Mapping[Value, Any]) -> Heads | None:
    """From where a new key or value of (batch, heads, 1, size) comes."""
    if value is None or value.shape is None:
        return None
    try:
        return heads(Factor(value, "bhld"), "l", "d", linears, norms, Statics())
    except Refused:
        return None


def _unscaled(value: Value) -> Value:
    """A value before a number that multiplies it."""
    while value.op == "mul":
        plain = [bare(v) for v in value.inputs if v is not None and v.shape not in ((), (1,))]
        if len(plain) != 1:
            return value
        value = plain[0]
    return value


def _joined(value: Value, count: int, inside: set[Value]) -> Value | None:
    """The past and one more along the length, behind the layout and the repeats that the scores want.

    Args:
        count: of the queries' heads.
        inside: the attention, which alone reads it.
    """
    steps = []
    value = bare(value)
    while value.op in LAYOUT and value.inputs[0] is not None:
        steps.append(value)
        value = bare(value.inputs[0])
    shape = value.shape
    if value.op != "concat" or len(value.inputs) != 2 or shape is None or len(shape) != 4:
        return None
    past, new = value.inputs
    if value.attrs["axis"] not in (2, -2) or past is None or new is None or new.shape is None:
        return None
    whole = sizes(value)
    if new.shape[2] != 1 or whole[2] < 2 or count % whole[1]:
        return None
    marks = np.arange(np.prod(whole)).reshape(whole)
    found = marks
    for step in reversed(steps):
        found = _through(step, found)
    heads_ = np.repeat(marks, count // whole[1], 1)
    same = any(np.array_equal(found, each) for each in (heads_, heads_.swapaxes(2, 3)))
    return value if same and _only_read(value, inside) else None


def _only_read(value: Value, inside: set[Value]) -> bool:
    """Whether a value, in whatever layout, is read in there alone."""
    return all(user in inside or (user.op in LAYOUT and _only_read(user, inside)) for user in value.users)


def _through(step: Value, array: np.ndarray) -> np.ndarray:
    if step.op == "transpose":
        return array.transpose(step.attrs["perm"])
    return np.broadcast_to(array, sizes(step)) if step.op == "expand" else array.reshape(sizes(step))


def write_cached(site: Site, found: Cached) -> list[Item]:
    """The item that provides the context, and one for the joined keys and values, which it writes, too."""
    a = found.attention
    reads: list[Need] = [need(site, linear) for linear, _ in found.sides]
    more = [*found.past, *(value for _, value in a.terms)]
    more += [a.mask] if a.selected and a.mask is not None else []
    more += [found.turned.cosines, found.turned.sines] if found.turned else []
    reads += [(value, "float") for value in more]
    return [
        Item((a.context,), tuple(reads), lambda: _write(site, found)),
        Item(found.present, (), lambda: None),
    ]


def _write(site: Site, found: Cached) -> None:
    em, a, turned = site.emitter, found.attention, found.turned
    batch, groups, past, dim = sizes(found.past[0])
    value_dim = sizes(found.past[1])[-1]
    sides = projected(site, found.sides)
    columns = [Columns(int(rows.ty.shape[1]), at) for rows, at in sides]
    bias, axes = bias_of(site, a, (1, past + 1))
    circle = (turned.cosines, turned.sines) if turned else ()
    angles = [em.shaped(em.whole(v), [_turned(v), sizes(v)[-1]]) for v in circle]
    spec = CachedAttention(
        batch, past, a.heads, groups, dim, value_dim, float(a.scale), columns[0], columns[1], columns[2],
        turned.width if turned else 0, _turned(turned.cosines) if turned else 1, axes,
    )  # fmt: skip
    grown = [(batch, groups, past + 1, dim), (batch, groups, past + 1, value_dim)]
    context, *present = em.kernel(
        "cached_attention", ("cached_attention", spec), lambda: cached_attention(spec, site.machine),
        [*(rows for rows, _ in sides), *angles, *map(em.whole, found.past), *([bias] if axes else [])],
        [((batch, a.heads * value_dim), "float32"), *((size, "float32") for size in grown)],
    )  # fmt: skip
    em.set_rows(a.context, context)
    for value, variable in zip(found.present, present, strict=True):
        em.set_whole(value, variable)


def _turned(angles: Value) -> int:
    """How many sequences have angles of their own."""
    return sizes(angles)[0]

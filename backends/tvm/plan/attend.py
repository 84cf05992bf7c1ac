"""Attention written as one kernel, behind the projections as one product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from ....ir.blocks.base import Attention, Linear
from ....ir.blocks.sight import Fixed, Sight
from ....ir.blocks.walk import LAYOUT, passes
from ....ir.ops.evaluate import scalar
from ....ir.values import sizes
from ..kernels.attention import attention
from ..kernels.attention_spec import Attention as Spec
from ..kernels.attention_spec import Columns
from ..kernels.rotate import Rotate, rotate
from ..kernels.rows import Finish
from ..kernels.sparse_attention import sparse_attention
from ..kernels.visible import Visible, packed_bits, visible
from ..kernels.window_attention import window_attention
from .bfloat16 import factors, in_bfloat16
from .chains import fits
from .dense import joined, need, write_dense
from .few_bits import write_few_bits
from .items import Item, Need
from .rotation import Rotation, rotated, rotation
from .site import Site


def direct(a: Attention) -> bool:
    """Whether the kernel can read the projections' results as they are."""
    sides = ((a.q, a.q_features), (a.k, a.k_features), (a.v, a.v_features))
    known = all(linear is not None and fits(linear) and features is not None for linear, features in sides)
    turned = not a.rotary or turning(a) is not None
    plain = a.q_norm is None and a.k_norm is None and not a.shifted
    return known and turned and plain and a.relative_bias is None


def turning(a: Attention) -> Rotation | None:
    """How queries and keys are rotated to their positions, both alike and from the projections on."""
    found = rotation(rotated(a.query))
    return found if found is not None and found == rotation(rotated(a.key)) else None


def fitting(a: Attention) -> bool:
    """Whether the kernel's context, (batch, length, heads of features side by side), is the graph's."""
    shape, asked = a.context.shape, a.query.shape
    if shape is None or asked is None or a.key.shape is None or len(shape) != 3:
        return False
    if a.gate is not None or a.sinks is not None:
        return False
    value = a.context  # where there are as many rows as positions, which of them come first shows on the way
    while shape[0] == shape[1] and (passes(value) or value.op in LAYOUT) and value.inputs[0] is not None:
        if value.op == "transpose" and value.attrs["perm"][0] != 0:
            return False
        value = value.inputs[0]
    terms = [value for _, value in a.terms] + ([a.mask] if a.mask is not None else [])
    ranks = [list(value.shape or ()) for value in terms]
    if a.layouts[0].startswith("(bh)") and any(len(rank) == 3 and rank[0] != 1 for rank in ranks):
        return False  # batch and heads are one axis of the mask, too
    lengths = _lengths(a)
    whole = (_batch(a), a.heads, *lengths)
    spread = all(
        size in (1, full) for rank in ranks for size, full in zip(rank[::-1], whole[::-1], strict=False)
    )
    return spread and shape[1] == lengths[0] and sizes(a.context)[2] % a.heads == 0


def write_attention(site: Site, a: Attention) -> Item:
    """The item that provides an attention's context."""
    terms: list[Need] = [] if site.packed else [(value, "float") for _, value in a.terms]
    if a.selected and not site.packed and a.mask is not None:
        terms.append((a.mask, "float"))
    if direct(a):
        reads: list[Need] = [need(site, linear) for linear in (a.q, a.k, a.v) if linear is not None]
        if a.rotary and (turned := turning(a)) is not None:
            reads += [(turned.cosines, "float"), (turned.sines, "float")]
    else:
        reads = [(value, "float") for value in factors(a)]
    return Item((a.context,), (*reads, *terms), lambda: _write(site, a))


def _write(site: Site, a: Attention) -> None:
    em = site.emitter
    if em.packed:
        for linear in (a.q, a.k, a.v):
            assert linear is not None
            em.to_tokens(need(site, linear)[0])
    sides = _turned(site, a, projected(site, _sides(a))) if direct(a) else _materialised(site, a)
    q, k, v = (rows for rows, _ in sides)
    columns = [Columns(int(rows.ty.shape[1]), at) for rows, at in sides]
    dim = a.head_dim if direct(a) else sizes(a.query)[a.layouts[0].replace("(bh)", "b").index("d")]
    value_dim = sizes(a.context)[-1] // a.heads
    kv_heads = a.kv_heads if direct(a) else int(k.ty.shape[1]) // dim
    lengths, batch = _lengths(a), _batch(a)
    sight = site.masks.sight(a) if em.packed else Sight(behind=0 if a.causal else None)
    causal = sight == Sight(behind=0) and lengths[0] == lengths[1]
    bias, axes = (None, None) if em.packed else bias_of(site, a, lengths)
    finish = site.finish(a.context)
    finish = Finish(floats=finish.floats, rounds=finish.rounds)
    rounded, scale = in_bfloat16(a), a.scale if direct(a) else a.operand_scale
    if rounded and direct(a):
        scale /= rounded[0] * rounded[1]
    elif rounded:  # as the graph computed them
        rounded = (1.0, 1.0)
    spec = Spec(
        a.heads, kv_heads, dim, value_dim, float(scale), lengths[1],
        columns[0], columns[1], columns[2],
        causal, axes, finish, a.softcap, rounded,
    )  # fmt: skip
    starts, q_starts = _starts(site, batch, lengths)
    if em.packed:
        em.tokens.add(a.context)
    rows = em.kept if em.packed else batch * lengths[0]
    name, key, make, masking = _kernel(site, spec, sight)
    results = em.kernel(
        name, key, make,
        [q, k, v, starts, q_starts, *masking, *([bias] if bias is not None else []),
         *site.arguments(finish, a.context, None, None, 0)],
        site.results(finish, rows, a.heads * value_dim),
    )  # fmt: skip
    site.put(finish, a.context, results)


def _kernel(site: Site, spec: Spec, sight: Sight | Fixed | None) -> tuple[str, Any, Any, list[Any]]:
    """(name, key, what builds it, what it takes to know which keys are seen)."""
    machine, kind = site.machine, "attention_bf16" if spec.bfloat16 else "attention"
    if isinstance(sight, Fixed):
        name = f"sparse_{kind}"
        return name, (name, spec), lambda: sparse_attention(spec, machine), [_words(site, sight)]
    if sight is not None and sight.before is not None and sight.behind is not None:
        name, window = f"window_{kind}", (sight.before, sight.behind)
        make = lambda: window_attention(spec, window, machine)
        return name, (name, spec, window), make, [site.emitter.rows_input]
    return kind, (kind, spec), lambda: attention(spec, machine), []


def _turned(site: Site, a: Attention, sides: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """The sides, queries and keys rotated to their positions where the graph does that."""
    turned, em = turning(a) if a.rotary else None, site.emitter
    if turned is None:
        return sides
    angles = [em.shaped(em.whole(v), [turned.places, turned.width]) for v in (turned.cosines, turned.sines)]
    tokens = (
        em.rows_input if em.packed else em.constant(np.arange(_batch(a) * _lengths(a)[0], dtype=np.int32))
    )

    def turn(rows: Any, at: int, heads: int) -> Any:
        spec = Rotate(heads, a.head_dim, Columns(int(rows.ty.shape[1]), at), turned.width)
        (made,) = em.kernel(
            "rotate", ("rotate", spec), lambda: rotate(spec, site.machine), [tokens, rows, *angles],
            [((rows.ty.shape[0], heads * a.head_dim), "float32")],
        )  # fmt: skip
        return made

    (q, q_at), (k, k_at), v = sides
    size = a.heads * a.head_dim
    if q is k and k_at == q_at + size:
        both = turn(q, q_at, a.heads + a.kv_heads)
        return [(both, 0), (both, size), v]
    return [(turn(q, q_at, a.heads), 0), (turn(k, k_at, a.kv_heads), 0), v]


def _batch(a: Attention) -> int:
    return sizes(a.context)[0]


def _lengths(a: Attention) -> tuple[int, int]:
    """Queries and keys of a sequence."""
    found = []
    for value, layout in ((a.query, a.layouts[0]), (a.key, a.layouts[1])):
        found.append(sizes(value)[layout.replace("(bh)", "b").index("l")])
    return found[0], found[1]


def _starts(site: Site, batch: int, lengths: tuple[int, int]) -> tuple[Any, Any]:
    em = site.emitter
    if em.packed:
        return em.starts_input, em.starts_input
    keys, queries = (np.arange(batch + 1, dtype=np.int32) * length for length in (lengths[1], lengths[0]))
    return em.constant(keys), em.constant(queries)


def _words(site: Site, pattern: Fixed) -> Any:
    """Which keys each kept token sees, once for all layers that share the pattern."""
    em = site.emitter
    if pattern not in site.words:
        spec = Visible(len(pattern.sees))
        (site.words[pattern],) = em.kernel(
            "visible", ("visible", spec), lambda: visible(spec, site.machine),
            [em.constant(packed_bits(pattern.sees, site.machine)), em.rows_input, em.starts_input],
            [((em.kept, spec.words(site.machine)), "int32")],
        )  # fmt: skip
    return site.words[pattern]


def _sides(a: Attention) -> list[tuple[Linear, np.ndarray]]:
    """Of an attention that is `direct`: each one's projection, and which of its features."""
    sides = ((a.q, a.q_features), (a.k, a.k_features), (a.v, a.v_features))
    return [(linear, at) for linear, at in sides if linear is not None and at is not None]


def projected(site: Site, sides: Sequence[tuple[Linear, np.ndarray]]) -> list[tuple[Any, int]]:
    """(rows, first column) of queries, keys and values: Linears of one input in one product.

    Args:
        sides: each one's Linear, and which of its features.
    """
    groups: dict[Any, list[int]] = {}
    for number, (linear, _) in enumerate(sides):
        product, few = site.integers.products.get(linear.root), site.coded.get(linear.root)
        kind = product.rounding if product else few and (few.k, few.group, few.rounds)
        groups.setdefault((linear.input, kind), []).append(number)
    found: dict[int, tuple[Any, int]] = {}
    for numbers in groups.values():
        linears, features = [sides[i][0] for i in numbers], [sides[i][1] for i in numbers]
        at = 0
        if linears[0].root in site.coded:
            rows = write_few_bits(site, linears, features)
        else:
            matrix = joined(site, linears, features)
            width = matrix.weight.shape[1]
            (rows,) = write_dense(site, linears[0], matrix, width, Finish(), lambda padded: [])
        for i in numbers:
            found[i] = (rows, at)
            at += sides[i][1].size
    return [found[i] for i in range(len(sides))]


def _materialised(site: Site, a: Attention) -> list[tuple[Any, int]]:
    """Queries, keys and values as the graph computed them, as rows of heads side by side."""
    found = []
    for value, layout in zip(factors(a), a.layouts, strict=True):
        variable, emit = site.emitter.whole(value), site.emitter.builder.emit
        axes = dict(zip(layout.replace("(bh)", "b"), sizes(value), strict=True))
        if layout.startswith("(bh)"):
            axes = {"b": axes.pop("b") // a.heads, "h": a.heads, **axes}
        axes.pop("1", None)  # an axis of one, such as a batch of one
        variable = emit(relax.op.reshape(variable, list(axes.values())))
        order = [letter for letter in "blhd" if letter in axes]
        if order != list(axes):
            variable = emit(relax.op.permute_dims(variable, [list(axes).index(letter) for letter in order]))
        rows, width = axes.get("b", 1) * axes["l"], axes.get("h", 1) * axes["d"]
        found.append((emit(relax.op.reshape(variable, [rows, width])), 0))
    return found


def bias_of(site: Site, a: Attention, lengths: tuple[int, int]) -> tuple[Any, Any]:
    """(what is added to the scores, which of batch and heads it is the same for), or (None, None)."""
    em, emit = site.emitter, site.emitter.builder.emit
    total: Any = None
    for factor, value in a.terms:
        term = _four(em, em.whole(value))
        if factor != 1:
            term = emit(relax.op.multiply(term, relax.const(np.float32(factor))))
        total = term if total is None else emit(relax.op.add(total, term))
    if a.selected and a.mask is not None:
        keep, hide = relax.const(np.float32(0)), relax.const(np.float32(-np.inf if _infinite(a) else -1e30))
        chosen = (keep, hide) if a.mask_keeps else (hide, keep)
        shut = emit(relax.op.where(_four(em, em.whole(a.mask)), *chosen))
        total = shut if total is None else emit(relax.op.add(total, shut))
    if total is None:
        return None, None
    shape = [int(d) for d in total.ty.shape]
    wanted = [shape[0], shape[1], *lengths]
    if shape != wanted:
        total = emit(relax.op.broadcast_to(total, wanted))
    return total, (shape[0] == 1, shape[1] == 1)


def _infinite(a: Attention) -> bool:
    """Whether -inf is written over hidden scores, not a finite number: of a row of those nothing is left."""
    chosen = [value for value in a.body if value.op == "where" and value.inputs[0] == a.mask]
    return any(scalar(side) == -np.inf for value in chosen for side in value.inputs[1:])


def _four(em: Any, variable: Any) -> Any:
    """A mask with all four axes."""
    shape = [int(d) for d in variable.ty.shape]
    return em.shaped(variable, [1] * (4 - len(shape)) + shape)

"""Attention of one query a sequence over cached keys and values, with grouped heads (arXiv:2305.13245).

The new key is rotated to its position (Su et al., 2021, arXiv:2104.09864) and joins the others on the way:
keys and values are read once, and the cache that goes out is written from the same registers. A task is the
queries that share a head of keys, over all keys or, where heads don't divide by threads, over some of them;
parts of a softmax are then put together (as in flash decoding, Dao et al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .attention import ABSENT, HIDDEN, masked
from .attention_spec import Columns
from .machine import Machine
from .vector import LARGEST, SUM, Expr, chunks, each, exp, load, row, splat, store


@dataclass(frozen=True)
class CachedAttention:
    """batch sequences of `past` cached keys each, and one more. heads of queries; kv_heads divide them. dim:
    of queries and keys, value_dim: of values. scale: of the products. rotary: columns of the cosines, dim or
    the half of it; 0 for none. turned: sequences that have cosines of their own, batch or 1. bias:
    as in `attention.Attention`.
    """

    batch: int
    past: int
    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    scale: float
    q: Columns
    k: Columns
    v: Columns
    rotary: int = 0
    turned: int = 1
    bias: tuple[bool, bool] | None = None


def cached_attention(spec: CachedAttention, machine: Machine) -> tirx.PrimFunc:
    """The kernel.

    Parameters, all float32: q [batch, q.width], k, v likewise, rows as the projections leave them; cosines
    and sines [turned, rotary] where there are any; past keys [batch, kv_heads, past, dim] and values; bias
    [batch|1, heads|1, 1, past + 1] where there is one. Results: the context [batch, heads * value_dim], keys
    [batch, kv_heads, past + 1, dim] and values.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        _Kernel(spec, machine).build()
    return builder.get()


class _Kernel:
    def __init__(self, spec: CachedAttention, machine: Machine) -> None:
        self.spec, self.threads, self.lanes = spec, machine.threads, machine.lanes
        self.group, self.keys = spec.heads // spec.kv_heads, spec.past + 1
        self.rows = spec.batch * spec.kv_heads
        wanted = min(machine.threads // gcd(self.rows, machine.threads), self.keys)
        self.part = -(-self.keys // wanted)  # keys of a task
        self.parts = -(-self.keys // self.part)

    def build(self) -> None:
        spec, lanes = self.spec, self.lanes
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "cached_attention"})
        argument = lambda name, *shape: T.arg(name, T.buffer(shape, "float32"))
        self.q = argument("q", spec.batch, spec.q.width)
        self.k = argument("k", spec.batch, spec.k.width)
        self.v = argument("v", spec.batch, spec.v.width)
        if spec.rotary:
            self.cos = argument("cosines", spec.turned, spec.rotary)
            self.sin = argument("sines", spec.turned, spec.rotary)
        self.past_k = argument("past_keys", spec.batch, spec.kv_heads, spec.past, spec.dim)
        self.past_v = argument("past_values", spec.batch, spec.kv_heads, spec.past, spec.value_dim)
        if spec.bias is not None:
            sizes = (1 if spec.bias[0] else spec.batch, 1 if spec.bias[1] else spec.heads)
            self.bias = argument("bias", *sizes, 1, self.keys)
        self.context = argument("context", spec.batch, spec.heads * spec.value_dim)
        self.out_k = argument("keys", spec.batch, spec.kv_heads, self.keys, spec.dim)
        self.out_v = argument("values", spec.batch, spec.kv_heads, self.keys, spec.value_dim)
        tasks = self.rows * self.parts
        alloc = lambda *shape: T.alloc_buffer(shape, "float32", scope="global")
        self.sums = alloc(tasks * self.group, spec.value_dim)
        self.peaks, self.totals = alloc(tasks * self.group), alloc(tasks * self.group)
        per = -(-tasks // self.threads)
        with T.parallel(0, self.threads) as thread:
            queries, key = alloc(self.group, spec.dim), alloc(1, spec.dim)
            scores = alloc(self.group, -(-self.part // lanes) * lanes)
            with T.serial(thread * per, T.min((thread + 1) * per, tasks)) as task:
                self._task(task, queries, key, scores)
        with T.serial(0, spec.batch * spec.heads) as head:
            self._join(head)

    def _task(self, task: Expr, queries: Any, key: Any, scores: Any) -> None:
        """The weighted sum of some values, its softmax's largest score and its sum."""
        spec, group = self.spec, self.group
        place = T.bind(task // self.parts)
        b, h = T.bind(place // spec.kv_heads), T.bind(place % spec.kv_heads)
        first = T.bind(task % self.parts * self.part)
        last = T.bind(T.min(first + self.part, self.keys))
        cached = T.bind(T.min(last, spec.past))
        for g in range(group):
            self._rotate(queries, g, self.q, b, spec.q.at + (h * group + g) * spec.dim, spec.scale)
        with T.serial(first, cached) as j:
            self._score(queries, self.past_k, (b, h, j), (b, h, j), scores, j - first)
        with T.serial(cached, last) as j:  # the new key, in the last part
            self._rotate(key, 0, self.k, b, spec.k.at + h * spec.dim, 1.0)
            self._score(queries, key, (0,), (b, h, j), scores, j - first)
        count = T.bind(last - first)
        for g in range(group):
            self._softmax(b, h * group + g, g, first, count, scores, task * group + g)
        self._values(b, h, first, cached, last, scores, task * group)

    def _rotate(self, to: Any, at: int, x: Any, b: Expr, column: Expr, scale: float) -> None:
        """A head of a row, turned by the sequence's position and scaled, into a row of scratch."""
        spec, half = self.spec, self.spec.dim // 2
        scaled = lambda value, width: value if scale == 1 else value * splat(scale, width)
        if not spec.rotary:
            for start, width in chunks(spec.dim, self.lanes):
                store(to, scaled(load(x, b, column + start, lanes=width), width), at, start)
            return
        where = 0 if spec.turned == 1 else b
        for start, width in chunks(half, self.lanes):
            low = T.bind(scaled(load(x, b, column + start, lanes=width), width))
            high = T.bind(scaled(load(x, b, column + half + start, lanes=width), width))
            for place, plain, crossed in ((0, low, splat(0.0, width) - high), (half, high, low)):
                at_angle = start + (place if spec.rotary == spec.dim else 0)
                cos, sin = (load(angle, where, at_angle, lanes=width) for angle in (self.cos, self.sin))
                store(to, plain * cos + crossed * sin, at, place + start)

    def _score(self, queries: Any, key: Any, read: tuple, written: tuple, scores: Any, at: Expr) -> None:
        """One key against the queries that share it, and into the cache."""

        def products(column: Expr, width: int) -> tuple[Expr, ...]:
            value = T.bind(load(key, *read, column, lanes=width))
            store(self.out_k, value, *written, column)
            return tuple(value * load(queries, g, column, lanes=width) for g in range(self.group))

        for g, total in enumerate(row(self.spec.dim, self.lanes, (SUM,) * self.group, products)):
            T.buffer_store(scores, total, [g, at])

    def _softmax(
        self, b: Expr, head: Expr, g: int, first: Expr, count: Expr, scores: Any, slot: Expr
    ) -> None:  # fmt: skip
        """Unnormalised weights in place of the scores."""
        spec, lanes, width = self.spec, self.lanes, int(scores.shape[1])
        if spec.bias is not None:
            where = (0 if spec.bias[0] else b, 0 if spec.bias[1] else head, 0)
            with T.serial(0, count) as j:
                total = scores[g, j] + self.bias[(*where, first + j)]
                T.buffer_store(scores, masked(total, 1), [g, j])
        with T.serial(count, width) as j:
            T.buffer_store(scores, T.float32(ABSENT), [g, j])
        read = lambda column, size: (load(scores, g, column, lanes=size),)
        (peak,) = row(width, lanes, (LARGEST,), read)

        def weight(column: Expr, size: int) -> tuple[Expr]:
            value = T.bind(exp(load(scores, g, column, lanes=size) - splat(peak, size)))
            store(scores, value, g, column)
            return (value,)

        (total,) = row(width, lanes, (SUM,), weight)
        T.buffer_store(self.peaks, peak, [slot])
        T.buffer_store(self.totals, total, [slot])

    def _values(
        self, b: Expr, h: Expr, first: Expr, cached: Expr, last: Expr, scores: Any, slot: Expr
    ) -> None:  # fmt: skip
        spec = self.spec
        parts = chunks(spec.value_dim, self.lanes)
        sums = [T.alloc_buffer((self.group, width), "float32", scope="local") for _, width in parts]
        for total, (_, width) in zip(sums, parts, strict=True):
            for g in range(self.group):
                store(total, splat(0.0, width), g, 0)

        def add(j: Expr, source: Any, read: tuple, column: Expr) -> None:
            for total, (start, width) in zip(sums, parts, strict=True):
                value = T.bind(load(source, *read, column + start, lanes=width))
                store(self.out_v, value, b, h, j, start)
                for g in range(self.group):
                    before = load(total, g, 0, lanes=width)
                    store(total, T.fma(splat(scores[g, j - first], width), value, before), g, 0)

        with T.serial(first, cached) as j:
            add(j, self.past_v, (b, h, j), tirx.const(0, "int32"))
        with T.serial(cached, last) as j:
            add(j, self.v, (b,), spec.v.at + h * spec.value_dim)
        for g in range(self.group):
            for total, (start, width) in zip(sums, parts, strict=True):
                store(self.sums, load(total, g, 0, lanes=width), slot + g, start)

    def _join(self, head: Expr) -> None:
        """The parts of one head's softmax put together."""
        spec, group = self.spec, self.group
        slots = [
            T.bind(head // group * self.parts * group + p * group + head % group) for p in range(self.parts)
        ]
        peak = self.peaks[slots[0]]
        for slot in slots[1:]:
            peak = T.max(peak, self.peaks[slot])
        peak = T.bind(peak)
        shares = [T.bind(exp(self.peaks[slot] - peak)) for slot in slots]
        total = T.bind(sum((self.totals[s] * w for s, w in zip(slots, shares, strict=True)), T.float32(0)))
        factor = T.float32(1) / total
        if spec.bias is not None:
            factor = T.Select(peak < T.float32(HIDDEN), T.float32(0), factor)
        shares = [T.bind(share * factor) for share in shares]

        def write(column: Expr, width: int) -> None:
            value = splat(0.0, width)
            for slot, share in zip(slots, shares, strict=True):
                value = T.fma(load(self.sums, slot, column, lanes=width), splat(share, width), value)
            store(self.context, value, head // spec.heads, head % spec.heads * spec.value_dim + column)

        each(spec.value_dim, self.lanes, write)

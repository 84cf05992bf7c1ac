"""Attention as one kernel (Vaswani et al., 2017, arXiv:1706.03762): scores, mask, softmax and values.

A head of one sequence is a task: its keys are transposed and its values copied into cache once, then tiles of
queries pass over them, and scores never leave the first cache (the idea of FlashAttention, arXiv:2205.14135,
without its blocks of keys: all keys of a head fit a CPU's second cache). Sequences lie packed, one behind the
other; `starts` says where, so padding is neither computed nor looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .amx import ROWS, TILES
from .attention_bfloat16 import Bfloat16Products
from .attention_products import Products
from .attention_spec import Attention
from .attention_tiles import TileProducts
from .dot import product_of
from .machine import Machine
from .rows import Finish, Outputs, declare_inputs, declare_outputs, finish_row
from .vector import LARGEST, Expr, each, exp, fold, load, splat, store

# Scores of keys that a mask hides by a finite number, by -inf, and of keys that there are none of.
HIDDEN, SHUT, ABSENT = -3e38, -3.2e38, -3.4e38
LOWEST = float(np.finfo(np.float32).min)


def attention(spec: Attention, machine: Machine) -> tirx.PrimFunc:
    """The kernel for any number of sequences.

    Parameters: q [mq, q.width], k [mk, k.width], v [mk, v.width] float32; starts [b + 1] int32, the first row
    of each sequence among the keys, and q_starts [b + 1] among the queries; where there is one, bias
    [b|1, heads|1, queries, keys]; the inputs of `Finish`, then its outputs over rows of heads * value_dim.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        AttentionKernel(spec, machine).build()
    return builder.get()


def masked(total: Expr, lanes: int) -> Expr:
    """Scores with a mask added, without the infinities of which a softmax would make NaN."""
    total = T.bind(total)
    finite = T.max(total, splat(HIDDEN, lanes))
    return T.Select(total < splat(LOWEST, lanes), splat(SHUT, lanes), finite)


def key_block(machine: Machine) -> int:
    """Keys whose scores are computed together: two or three vectors."""
    return machine.lanes * (3 if machine.registers >= 32 else 2)


class AttentionKernel:
    """Writes the kernel. Scores lie in slots; a key's slot is its number, and all of them are visited.

    spotted: whether each key must be asked if a query sees it; or else the first so many are seen.
    """

    spotted = False

    def __init__(self, spec: Attention, machine: Machine) -> None:
        self.spec, self.machine, self.lanes = spec, machine, machine.lanes
        self.dot = product_of(spec.finish.rounds, machine)
        # As many queries at once as leave registers for two or three vectors of keys, or of values.
        self.height = 8 if machine.registers >= 32 else 4
        self._products: type[Products] = Bfloat16Products if spec.bfloat16 else Products
        if spec.bfloat16 and machine.tiles != "no":
            self.height, self._products = ROWS, TileProducts
        self.block = key_block(machine)
        self.longest = -(-spec.keys // self.block) * self.block
        self.width = spec.heads * spec.value_dim

    def build(self) -> None:
        spec = self.spec
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "attention"})
        if self._products is TileProducts:
            T.func_attr({TILES: True})
        mq, mk, entries = (tirx.Var(name, "int64") for name in ("mq", "mk", "entries"))
        self.q = T.arg("q", T.buffer((mq, spec.q.width), "float32"))
        self.k = T.arg("k", T.buffer((mk, spec.k.width), "float32"))
        self.v = T.arg("v", T.buffer((mk, spec.v.width), "float32"))
        self.starts = T.arg("starts", T.buffer((entries,), "int32"))
        self.q_starts = T.arg("q_starts", T.buffer((entries,), "int32"))
        self._declare(mk)
        if spec.bias is not None:
            b, queries, keys = (tirx.Var(name, "int64") for name in ("b", "lq", "lk"))
            shape = (1 if spec.bias[0] else b, 1 if spec.bias[1] else spec.heads, queries, keys)
            self.bias = T.arg("bias", T.buffer(shape, "float32"))
        buffers = declare_inputs(spec.finish, mq, self.width, self.width)
        outputs = Outputs(**buffers, **declare_outputs(spec.finish, mq, self.width, self.dot))
        rows, tasks = T.bind(T.cast(mq, "int32")), T.bind((T.cast(entries, "int32") - 1) * spec.heads)
        self.context = outputs.floats
        if not spec.finish.floats:
            self.context = T.alloc_buffer((mq, self.width), "float32", scope="global")
        per = T.bind((tasks + (self.machine.threads - 1)) // self.machine.threads)
        with T.parallel(0, self.machine.threads) as thread:
            self.products = self._products(self)
            self.scores = T.alloc_buffer((self.height, self.longest), "float32", scope="global")
            self._reserve()
            with T.serial(T.min(thread * per, tasks), T.min((thread + 1) * per, tasks)) as task:
                self._head(task // spec.heads, task % spec.heads)
            self.products.release()
        if spec.finish.rounds != "no":
            each_row = T.bind((rows + (self.machine.threads - 1)) // self.machine.threads)
            with T.parallel(0, self.machine.threads) as thread:
                first = T.bind(T.min(thread * each_row, rows))
                with T.serial(first, T.min(first + each_row, rows)) as number:
                    finish_row(
                        Finish(floats=False, rounds=spec.finish.rounds), outputs, self.dot, self.lanes,
                        self.width, number,
                        lambda column, lanes: load(self.context, number, column, lanes=lanes),
                        (self.context, number),
                    )  # fmt: skip

    def _declare(self, keys: Expr) -> None:
        """What the kernel takes to know which keys a query sees. keys: how many rows of them there are."""

    def _reserve(self) -> None:
        """What each thread keeps of it."""

    def block_at(self, number: Expr) -> Expr:
        """The block of keys whose scores lie in a block of slots."""
        return number

    def each_key(self, low: Expr, seen: Expr, step: int, do: Callable[[Expr, Expr], None]) -> None:
        """do(key, slot) at every so many slots, the first at or before low, the last before seen."""
        with T.serial(low // step, (seen + (step - 1)) // step) as j:
            do(j * step, j * step)

    def blocks(self, count: Expr) -> Expr:
        """How many blocks so many keys take."""
        return (count + (self.block - 1)) // self.block

    def _gather(self, first: Expr, count: Expr, group: Expr) -> None:
        """Reads the keys and values of a head, from the row `first` on."""
        self.products.gather(first, count, group)

    def _head(self, sequence: Expr, head: Expr) -> None:
        spec = self.spec
        first = T.bind(self.starts[sequence])
        count = T.bind(self.starts[sequence + 1] - first)
        begin = T.bind(self.q_starts[sequence])
        queries = T.bind(self.q_starts[sequence + 1] - begin)
        group = T.bind(head // (spec.heads // spec.kv_heads))
        self._gather(first, count, group)
        if self._products is TileProducts:
            with T.serial(0, (queries + (ROWS - 1)) // ROWS) as tile:
                at = T.bind(tile * ROWS)
                height = T.bind(T.min(queries - at, ROWS))
                self._queries(height, begin, at, queries, count, sequence, head)
            return
        with T.If(queries >= self.height):
            with T.Then(), T.serial(0, (queries + (self.height - 1)) // self.height) as tile:
                at = T.bind(T.min(tile * self.height, queries - self.height))
                self._queries(self.height, begin, at, queries, count, sequence, head)
            with T.Else(), T.serial(0, queries) as at:
                self._queries(1, begin, at, queries, count, sequence, head)

    def _queries(
        self, height: Expr, begin: Expr, at: Expr, queries: Expr, count: Expr, sequence: Expr, head: Expr
    ) -> None:
        """The context of `height` queries from the sequence's query `at` on. A number is unrolled."""
        spec = self.spec
        low, seen = self._range(height, at, queries, count)
        self.products.score(height, begin + at, head, low, seen)
        self.inverse = T.alloc_buffer((self.height,), "float32", scope="local")

        def weights(i: Expr) -> None:
            visible = T.bind(T.min(count, at + i + 1 + (count - queries))) if spec.causal else count
            self._softmax(i, at, low, seen, visible, sequence, head)

        self.each_query(height, weights)
        self.products.weigh(height, begin + at, head, low, seen)

    def each_query(self, height: Expr, do: Callable[[Expr], None]) -> None:
        """do(i) for each of `height` queries."""
        if isinstance(height, int):
            for i in range(height):
                do(i)
            return
        with T.serial(0, height) as i:
            do(i)

    def _range(self, height: Expr, at: Expr, queries: Expr, count: Expr) -> tuple[Expr, Expr]:
        """The first key that any of the queries may see, and the end of those."""
        if self.spec.causal:
            return T.int32(0), T.bind(T.min(count, at + height + (count - queries)))
        return T.int32(0), count

    def _softmax(
        self, i: Expr, at: Expr, low: Expr, seen: Expr, visible: Expr, sequence: Expr, head: Expr
    ) -> None:
        """Unnormalised weights of one query in place of its scores, and one over their sum."""
        spec, lanes, scores = self.spec, self.lanes, self.scores
        if spec.bias is not None:
            where = (0 if spec.bias[0] else sequence, 0 if spec.bias[1] else head, at + i)

            def add(j: Expr, width: int) -> None:
                total = load(scores, i, j, lanes=width) + load(self.bias, *where, j, lanes=width)
                store(scores, masked(total, width), i, j)

            each(spec.keys, lanes, add)
        first, vectors = T.bind(low // lanes), T.bind((seen + (lanes - 1)) // lanes)
        with T.serial(first if self.spotted else visible // lanes, vectors) as vector:
            value = load(scores, i, vector * lanes, lanes=lanes)
            shown = self._shown(at + i, visible, vector * lanes)
            store(scores, T.Select(shown, value, splat(ABSENT, lanes)), i, vector * lanes)
        held = T.alloc_buffer((lanes,), "float32", scope="local")
        store(held, splat(ABSENT, lanes), 0)
        with T.serial(first, vectors) as vector:
            store(held, T.max(load(held, 0, lanes=lanes), load(scores, i, vector * lanes, lanes=lanes)), 0)
        peak = T.bind(fold(load(held, 0, lanes=lanes), LARGEST.combine))
        store(held, splat(0.0, lanes), 0)
        with T.serial(first, vectors) as vector:
            value = T.bind(exp(load(scores, i, vector * lanes, lanes=lanes) - splat(peak, lanes)))
            store(scores, value, i, vector * lanes)
            store(held, load(held, 0, lanes=lanes) + value, 0)
        total = fold(load(held, 0, lanes=lanes), lambda a, b: a + b)
        share = T.float32(1) / total
        if spec.bias is not None:
            share = T.Select(peak < T.float32(HIDDEN), T.float32(0), share)
        T.buffer_store(self.inverse, share, [i])

    def _shown(self, query: Expr, visible: Expr, slot: Expr) -> Expr:
        """Which of a vector of keys a query sees."""
        return T.ramp(slot, 1, self.lanes) < splat(visible, self.lanes)

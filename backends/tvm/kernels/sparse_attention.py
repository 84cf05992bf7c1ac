"""Attention to some blocks of keys only (sparse patterns: arXiv:1904.10509; arXiv:2007.14062, section 2).

Each tile of queries visits the blocks in which one of them sees a key; their scores lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .attention import AttentionKernel
from .attention_spec import Attention
from .machine import Machine
from .vector import Expr, splat


def sparse_attention(spec: Attention, machine: Machine) -> tirx.PrimFunc:
    """`attention` whose parameters have, behind q_starts, words [mq, ceil(keys / lanes)] int32 of `visible`:
    a query sees the keys whose bits are set, at least one. spec: neither causal nor with a bias."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        _Sparse(spec, machine).build()
    return builder.get()


class _Sparse(AttentionKernel):
    spotted = True

    def _declare(self, keys: Expr) -> None:
        self.words = T.arg("words", T.buffer((keys, self.longest // self.lanes), "int32"))

    def _reserve(self) -> None:
        self.visited = T.alloc_buffer((self.longest // self.block,), "int32", scope="global")

    def block_at(self, number: Expr) -> Expr:
        return self.visited[number]

    def each_key(self, low: Expr, seen: Expr, step: int, do: Callable[[Expr, Expr], None]) -> None:
        with T.serial(low // self.block, seen // self.block) as number:
            block = T.bind(self.visited[number])
            with T.serial(0, self.block // step) as j:
                do(block * self.block + j * step, number * self.block + j * step)

    def _queries(
        self, height: Expr, begin: Expr, at: Expr, queries: Expr, count: Expr, sequence: Expr, head: Expr
    ) -> None:
        row = T.bind(begin + at)
        slots = T.bind(self._visit(height, row, count) * self.block)
        self.products.score(height, row, head, T.int32(0), slots)
        self.inverse = T.alloc_buffer((self.height,), "float32", scope="local")
        self.each_query(height, lambda i: self._softmax(i, row, T.int32(0), slots, count, sequence, head))
        self.products.weigh(height, row, head, T.int32(0), slots)

    def _visit(self, height: Expr, row: Expr, count: Expr) -> Expr:
        """Fills in which blocks the queries visit; how many they are."""
        number, seen = (T.alloc_buffer((1,), "int32", scope="local") for _ in range(2))
        T.buffer_store(number, T.int32(0), [0])
        vectors = self.block // self.lanes
        with T.serial(0, self.blocks(count)) as block:
            T.buffer_store(seen, T.int32(0), [0])

            def look(i: Expr) -> None:
                for v in range(vectors):
                    T.buffer_store(seen, seen[0] | self.words[row + i, block * vectors + v], [0])

            self.each_query(height, look)
            with T.If(seen[0] != 0), T.Then():
                T.buffer_store(self.visited, block, [number[0]])
                T.buffer_store(number, number[0] + 1, [0])
        return number[0]

    def _shown(self, query: Expr, visible: Expr, slot: Expr) -> Expr:
        vectors = self.block // self.lanes
        block = self.visited[slot // self.block]
        word = T.bind(self.words[query, block * vectors + slot % self.block // self.lanes])
        bits = splat(word, self.lanes, "int32") >> T.ramp(T.int32(0), 1, self.lanes)
        return (bits & splat(1, self.lanes, "int32")) != splat(0, self.lanes, "int32")

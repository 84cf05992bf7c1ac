"""The two products of an attention in bfloat16: queries, keys, probabilities and values are rounded to it.

Two numbers whose products are added lie in one word: two features of a key, or the values of two neighbouring
keys. So a word of the queries, or of the probabilities, meets a vector of words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.tirx.script import builder as T  # noqa: N812

from .attention_products import Products, zeros
from .bfloat16 import narrow
from .dot import bfloat16_dot
from .vector import Expr, cast, chunks, each, lanes_of, load, reinterpret, splat, store, transposed


class Bfloat16Products(Products):
    """keys: words, [dim / 2, longest]. values: words, [longest / 2, value_dim up to whole vectors]."""

    def _reserve(self) -> None:
        kernel = self.kernel
        self.dot, self.narrow = bfloat16_dot(kernel.machine), narrow(kernel.machine)
        self.dim = self.spec.dim + self.spec.dim % 2
        self.width = -(-self.spec.value_dim // self.lanes) * self.lanes
        words = lambda *shape: T.alloc_buffer(shape, "int32", scope="global")
        halves = lambda *shape: T.alloc_buffer(shape, "uint16", scope="global")
        self.keys, self.values = words(self.dim // 2, kernel.longest), words(kernel.longest // 2, self.width)
        self.some_keys, self.queries = halves(self.lanes, self.dim), halves(kernel.height, self.dim)
        self.probabilities = halves(kernel.height, kernel.longest)

    def gather(self, first: Expr, count: Expr, group: Expr) -> None:
        """As in float32; the last key stands behind itself, where there are none any more."""
        end = T.bind(self.kernel.blocks(count) * self.kernel.block)
        self._gather_keys(first, count, end, group)
        self._gather_values(first, count, end, group)

    def _gather_keys(self, first: Expr, count: Expr, end: Expr, group: Expr) -> None:
        lanes, pairs = self.lanes, self.dim // 2
        square = pairs // lanes * lanes
        last = T.bind(first + count - 1)
        column = T.bind(self.spec.k.at + group * self.spec.dim)
        with T.serial(0, end // lanes) as vector:
            with T.serial(0, lanes) as j:
                row = T.min(first + vector * lanes + j, last)
                self._round(self.kernel.k, row, column, self.some_keys, j)
            for d in range(0, square, lanes):
                rows = [T.bind(_words(load(self.some_keys, j, 2 * d, lanes=2 * lanes))) for j in range(lanes)]
                for number, words in enumerate(transposed(rows)):
                    store(self.keys, words, d + number, vector * lanes)
            for d in range(square, pairs):
                with T.serial(0, lanes) as j:
                    word = _words(load(self.some_keys, j, 2 * d, lanes=2))
                    T.buffer_store(self.keys, word, [d, vector * lanes + j])

    def _gather_values(self, first: Expr, count: Expr, end: Expr, group: Expr) -> None:
        column = T.bind(self.spec.v.at + group * self.spec.value_dim)

        def bits(key: Expr, start: Expr, width: int) -> Expr:
            value = load(self.kernel.v, first + key, column + start, lanes=width)
            return cast("uint32", self.narrow(value))

        def one(pair: Expr, start: Expr, width: int) -> Expr:
            return reinterpret("int32", bits(2 * pair, start, width))

        def both(pair: Expr, start: Expr, width: int) -> Expr:
            second = bits(2 * pair + 1, start, width) << splat(16, width, "uint32")
            return reinterpret("int32", bits(2 * pair, start, width) | second)

        def none(pair: Expr, start: Expr, width: int) -> Expr:
            return splat(0, width, "int32")

        def write(pair: Expr, words: Callable[[Expr, Expr, int], Expr]) -> None:
            put = lambda start, width: store(self.values, words(pair, start, width), pair, start)
            each(self.spec.value_dim, self.lanes, put)
            for start in range(self.spec.value_dim, self.width):
                T.buffer_store(self.values, T.int32(0), [pair, start])

        with T.serial(0, count // 2) as pair:
            write(pair, both)
        with T.If(count % 2 == 1), T.Then():
            write(T.bind(count // 2), one)
        with T.serial((count + 1) // 2, end // 2) as pair:
            write(pair, none)

    def _begin(self, height: int, row: Expr, head: Expr) -> None:
        for i in range(height):
            column = self.spec.q.at + head * self.spec.dim
            self._round(self.kernel.q, row + i, column, self.queries, i)

    def _multiply(self, height: int, row: Expr, head: Expr, block: Expr, sums: Any) -> None:
        with T.serial(0, self.dim // 2) as d:
            k = [
                T.bind(_halves(load(self.keys, d, block * self.kernel.block + v, lanes=self.lanes)))
                for v in range(0, self.kernel.block, self.lanes)
            ]
            for i in range(height):
                q = T.bind(self.dot.spread(self.queries, i, 2 * d, 2))
                for v, key in enumerate(k):
                    self._add(sums, i, v * self.lanes, q, key)

    def weigh(self, height: int, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        """As in float32, of probabilities that are divided by their sum before they are rounded."""
        kernel, lanes = self.kernel, self.lanes
        with T.serial(low // lanes, (seen + (lanes - 1)) // lanes) as vector:
            for i in range(height):
                p = load(kernel.scores, i, vector * lanes, lanes=lanes) * splat(kernel.inverse[i], lanes)
                store(self.probabilities, self.narrow(p), i, vector * lanes)
        for part in self._parts(chunks(self.width, lanes)):
            sums = zeros(height, part)

            def add(key: Expr, slot: Expr, part: Any = part, sums: Any = sums) -> None:
                v = [T.bind(_halves(load(self.values, key // 2, start, lanes=lanes))) for start, _ in part]
                for i in range(height):
                    p = T.bind(self.dot.spread(self.probabilities, i, slot, 2))
                    for total, value in zip(sums, v, strict=True):
                        self._add(total, i, 0, p, value)

            kernel.each_key(low, seen, 2, add)
            for i in range(height):
                for total, (start, _) in zip(sums, part, strict=True):
                    for column, width in chunks(min(self.spec.value_dim - start, lanes), lanes):
                        value = load(total, i, column, lanes=width)
                        place = head * self.spec.value_dim + start + column
                        store(kernel.context, value, row + i, place)

    def _add(self, sums: Any, i: int, column: int, word: Expr, halves: Expr) -> None:
        store(sums, self.dot.madd(load(sums, i, column, lanes=self.lanes), word, halves), i, column)

    def _round(self, rows: Any, row: Expr, column: Expr, into: Any, number: Expr) -> None:
        """One head's features of a row, with a zero behind them where their number is odd."""
        each(
            self.spec.dim, self.lanes, lambda start, width: store(
                into, self.narrow(load(rows, row, column + start, lanes=width)), number, start
            )
        )  # fmt: skip
        if self.dim > self.spec.dim:
            T.buffer_store(into, T.uint16(0), [number, self.spec.dim])


def _words(halves: Expr) -> Expr:
    """Pairs of neighbours as one number each."""
    count = lanes_of(halves) // 2
    return T.reinterpret("int32" if count == 1 else f"int32x{count}", halves)


def _halves(words: Expr) -> Expr:
    return T.reinterpret(f"uint16x{2 * lanes_of(words)}", words)

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
from .vector import Expr, cast, chunks, each, lanes_of, load, splat, store, transposed


class Bfloat16Products(Products):
    """keys: [dim / 2, 2 longest], two numbers of a word side by side. values: [longest / 2, 2 width].

    step, columns: features of queries and keys, and of values, are padded with zeros to multiples of these.
    """

    step, columns = 2, 1

    def _reserve(self) -> None:
        kernel = self.kernel
        assert self.spec.bfloat16 is not None
        self.before_q, self.before_k = self.spec.bfloat16
        self.dot, self.narrow = bfloat16_dot(kernel.machine), narrow(kernel.machine)
        self.dim = -(-self.spec.dim // self.step) * self.step
        columns = max(self.lanes, self.columns)
        self.width = -(-self.spec.value_dim // columns) * columns
        halves = lambda *shape: T.alloc_buffer(shape, "uint16", scope="global")
        self.keys = halves(self.dim // 2, 2 * kernel.longest)
        self.values = halves(kernel.longest // 2, 2 * self.width)
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
                self._round(self.kernel.k, row, column, self.before_k, self.some_keys, j)
            for d in range(0, square, lanes):
                rows = [T.bind(_words(load(self.some_keys, j, 2 * d, lanes=2 * lanes))) for j in range(lanes)]
                for number, words in enumerate(transposed(rows)):
                    store(self.keys, _halves(words), d + number, 2 * vector * lanes)
            for d in range(square, pairs):
                with T.serial(0, lanes) as j:
                    store(self.keys, load(self.some_keys, j, 2 * d, lanes=2), d, 2 * (vector * lanes + j))

    def _gather_values(self, first: Expr, count: Expr, end: Expr, group: Expr) -> None:
        column = T.bind(self.spec.v.at + group * self.spec.value_dim)

        def bits(key: Expr, start: Expr, width: int) -> Expr:
            value = load(self.kernel.v, first + key, column + start, lanes=width)
            return cast("uint32", self.narrow(value))

        def one(pair: Expr, start: Expr, width: int) -> Expr:
            return _halves(bits(2 * pair, start, width))

        def both(pair: Expr, start: Expr, width: int) -> Expr:
            second = bits(2 * pair + 1, start, width) << splat(16, width, "uint32")
            return _halves(bits(2 * pair, start, width) | second)

        def none(pair: Expr, start: Expr, width: int) -> Expr:
            return splat(0, 2 * width, "uint16")

        def write(pair: Expr, halves: Callable[[Expr, Expr, int], Expr]) -> None:
            put = lambda start, width: store(self.values, halves(pair, start, width), pair, 2 * start)
            each(self.spec.value_dim, self.lanes, put)
            for start, width in chunks(self.width - self.spec.value_dim, self.lanes):
                nothing = splat(0, 2 * width, "uint16")
                store(self.values, nothing, pair, 2 * (self.spec.value_dim + start))

        with T.serial(0, count // 2) as pair:
            write(pair, both)
        with T.If(count % 2 == 1), T.Then():
            write(T.bind(count // 2), one)
        with T.serial((count + 1) // 2, end // 2) as pair:
            write(pair, none)

    def _begin(self, height: Expr, row: Expr, head: Expr) -> None:
        column = T.bind(self.spec.q.at + head * self.spec.dim)
        self.kernel.each_query(
            height, lambda i: self._round(self.kernel.q, row + i, column, self.before_q, self.queries, i)
        )

    def _multiply(self, height: Expr, row: Expr, head: Expr, block: Expr, sums: Any) -> None:
        with T.serial(0, self.dim // 2) as d:
            first = block * self.kernel.block
            k = [
                T.bind(load(self.keys, d, 2 * (first + v), lanes=2 * self.lanes))
                for v in range(0, self.kernel.block, self.lanes)
            ]
            for i in range(height):
                q = T.bind(self.dot.spread(self.queries, i, 2 * d, 2))
                for v, key in enumerate(k):
                    self._add(sums, i, v * self.lanes, q, key)

    def weigh(self, height: Expr, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        """As in float32, of probabilities that are divided by their sum before they are rounded."""
        kernel, lanes = self.kernel, self.lanes
        kernel.each_query(height, lambda i: self._round_probabilities(i, low, seen))
        for part in self._parts(chunks(self.width, lanes)):
            sums = zeros(height, part)

            def add(key: Expr, slot: Expr, part: Any = part, sums: Any = sums) -> None:
                v = [T.bind(load(self.values, key // 2, 2 * start, lanes=2 * lanes)) for start, _ in part]
                for i in range(height):
                    p = T.bind(self.dot.spread(self.probabilities, i, slot, 2))
                    for total, value in zip(sums, v, strict=True):
                        self._add(total, i, 0, p, value)

            kernel.each_key(low, seen, 2, add)
            for i in range(height):
                for total, (start, _) in zip(sums, part, strict=True):
                    self._put(total, i, start, row, head, lanes)

    def _round_probabilities(self, i: Expr, low: Expr, seen: Expr) -> None:
        kernel, lanes = self.kernel, self.lanes
        share = T.bind(splat(kernel.inverse[i], lanes))
        with T.serial(low // lanes, (seen + (lanes - 1)) // lanes) as vector:
            p = load(kernel.scores, i, vector * lanes, lanes=lanes) * share
            store(self.probabilities, self.narrow(p), i, vector * lanes)

    def _put(self, sums: Any, i: Expr, start: int, row: Expr, head: Expr, size: int) -> None:
        """Writes a query's context from the column `start` of the values on, without what lies past them."""
        place = head * self.spec.value_dim + start
        for column, width in chunks(min(self.spec.value_dim - start, size), self.lanes):
            store(self.kernel.context, load(sums, i, column, lanes=width), row + i, place + column)

    def _add(self, sums: Any, i: int, column: int, word: Expr, halves: Expr) -> None:
        store(sums, self.dot.madd(load(sums, i, column, lanes=self.lanes), word, halves), i, column)

    def _round(self, rows: Any, row: Expr, column: Expr, before: float, into: Any, number: Expr) -> None:
        """One head's features of a row times a number, with zeros behind them up to a whole step."""

        def write(start: Expr, width: int) -> None:
            value = load(rows, row, column + start, lanes=width)
            value = value if before == 1 else value * splat(before, width)
            store(into, self.narrow(value), number, start)

        each(self.spec.dim, self.lanes, write)
        for start, width in chunks(self.dim - self.spec.dim, self.lanes):
            store(into, splat(0, width, "uint16"), number, self.spec.dim + start)


def _words(halves: Expr) -> Expr:
    """Pairs of neighbours as one number each."""
    count = lanes_of(halves) // 2
    return T.reinterpret("int32" if count == 1 else f"int32x{count}", halves)


def _halves(words: Expr) -> Expr:
    return T.reinterpret(f"uint16x{2 * lanes_of(words)}", words)

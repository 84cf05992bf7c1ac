"""The two products of an attention in float32: of queries and keys, and of probabilities and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tvm.tirx.script import builder as T  # noqa: N812

from .attention_spec import Attention
from .machine import Machine
from .vector import Expr, chunks, lanes_of, load, softcapped, splat, store, transposed


class Kernel(Protocol):
    """What products ask of the kernel that they are in (`attention.AttentionKernel`).

    lanes: of a vector. block: keys whose scores are computed together; longest: the most keys, up to whole
    blocks. height: the most queries at once. q, k, v, context: its rows. scores: of so many queries, by slot;
    inverse: of each, one over the sum of what the softmax leaves in their place.
    """

    spec: Attention
    machine: Machine
    lanes: int
    block: int
    longest: int
    height: int
    q: Any
    k: Any
    v: Any
    context: Any
    scores: Any
    inverse: Any

    def block_at(self, number: Expr) -> Expr:
        """The block of keys whose scores lie in a block of slots."""

    def blocks(self, count: Expr) -> Expr:
        """How many blocks so many keys take."""

    def each_key(self, low: Expr, seen: Expr, step: int, do: Callable[[Expr, Expr], None]) -> None:
        """do(key, slot) at every so many slots, the first at or before low, the last before seen."""

    def each_query(self, height: Expr, do: Callable[[Expr], None]) -> None:
        """do(i) for each of `height` queries."""


class Products:
    """For the thread that makes it: keys and values of one head as it reads them, and the products with them.

    keys: transposed, [dim, longest]. values: [longest, value_dim].
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.spec, self.lanes = kernel, kernel.spec, kernel.lanes
        self._reserve()

    def _reserve(self) -> None:
        spec, longest = self.spec, self.kernel.longest
        self.keys = T.alloc_buffer((spec.dim, longest), "float32", scope="global")
        self.values = T.alloc_buffer((longest, spec.value_dim), "float32", scope="global")

    def gather(self, first: Expr, count: Expr, group: Expr) -> None:
        """Reads `count` keys and values of a head from the row `first` on; what lies past them is finite."""
        spec, lanes, kernel = self.spec, self.lanes, self.kernel
        column = T.bind(spec.k.at + group * spec.dim)
        square = spec.dim // lanes * lanes
        whole = T.bind(count // lanes * lanes)
        with T.serial(0, count // lanes) as block:
            for d in range(0, square, lanes):
                rows = [
                    T.bind(load(kernel.k, first + block * lanes + j, column + d, lanes=lanes))
                    for j in range(lanes)
                ]
                for number, vector in enumerate(transposed(rows)):
                    store(self.keys, vector, d + number, block * lanes)
        end = T.bind(kernel.blocks(count) * kernel.block)
        with T.serial(0, spec.dim) as d:
            with T.serial(T.Select(d < square, whole, 0), count) as j:
                T.buffer_store(self.keys, kernel.k[first + j, column + d], [d, j])
            with T.serial(count, end) as j:
                T.buffer_store(self.keys, T.float32(0), [d, j])
        column = T.bind(spec.v.at + group * spec.value_dim)
        with T.serial(0, count) as j:  # row by row: a line of the cache is read once
            for start, width in chunks(spec.value_dim, lanes):
                store(self.values, load(kernel.v, first + j, column + start, lanes=width), j, start)
        with T.serial(count, end) as j:
            for start, width in chunks(spec.value_dim, lanes):
                store(self.values, splat(0.0, width), j, start)

    def score(self, height: Expr, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        """Scaled products of `height` queries from a row on with the keys from slot `low` to `seen`."""
        lanes, kernel = self.lanes, self.kernel
        vectors = kernel.block // lanes
        self._begin(height, row, head)
        with T.serial(T.bind(low // kernel.block), T.bind(kernel.blocks(seen))) as number:
            block = T.bind(kernel.block_at(number))
            sums = T.alloc_buffer((height, kernel.block), "float32", scope="local")
            for i in range(height):
                for v in range(vectors):
                    store(sums, splat(0.0, lanes), i, v * lanes)
            self._multiply(height, row, head, block, sums)
            for i in range(height):
                for v in range(vectors):
                    value = self._scaled(load(sums, i, v * lanes, lanes=lanes))
                    store(kernel.scores, value, i, number * kernel.block + v * lanes)

    def weigh(self, height: Expr, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        """The context of `height` queries, of probabilities in place of their scores."""
        kernel = self.kernel
        for part in self._parts(chunks(self.spec.value_dim, self.lanes)):
            sums = zeros(height, part)

            def add(key: Expr, slot: Expr, part: Any = part, sums: Any = sums) -> None:
                v = [T.bind(load(self.values, key, start, lanes=width)) for start, width in part]
                for i in range(height):
                    for total, value, (_, width) in zip(sums, v, part, strict=True):
                        p = splat(kernel.scores[i, slot], width)
                        store(total, T.fma(p, value, load(total, i, 0, lanes=width)), i, 0)

            kernel.each_key(low, seen, 1, add)
            for i in range(height):
                for total, (start, width) in zip(sums, part, strict=True):
                    value = load(total, i, 0, lanes=width) * splat(kernel.inverse[i], width)
                    store(kernel.context, value, row + i, head * self.spec.value_dim + start)

    def release(self) -> None:
        """What the thread gives back in the end."""

    def _scaled(self, value: Expr) -> Expr:
        """A product of queries and keys as the softmax takes it, before anything is added."""
        value = value * splat(self.spec.scale, lanes_of(value))
        return softcapped(value, self.spec.softcap) if self.spec.softcap else value

    def _begin(self, height: Expr, row: Expr, head: Expr) -> None:
        """What the queries need once before they meet the keys."""

    def _multiply(self, height: Expr, row: Expr, head: Expr, block: Expr, sums: Any) -> None:
        """Adds the products with a block of keys."""
        spec, lanes, kernel = self.spec, self.lanes, self.kernel
        column = spec.q.at + head * spec.dim
        with T.serial(0, spec.dim) as d:
            k = [
                T.bind(load(self.keys, d, block * kernel.block + v, lanes=lanes))
                for v in range(0, kernel.block, lanes)
            ]
            for i in range(height):
                q = T.bind(splat(kernel.q[row + i, column + d], lanes))
                for v, key in enumerate(k):
                    store(sums, T.fma(q, key, load(sums, i, v * lanes, lanes=lanes)), i, v * lanes)

    def _parts(self, vectors: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """Vectors of the values that are summed together, as many as registers allow."""
        most = self.kernel.block // self.lanes
        size = -(-len(vectors) // -(-len(vectors) // most))
        for first in range(0, len(vectors), size):
            yield vectors[first : first + size]


def zeros(height: Expr, part: list[tuple[int, int]]) -> list[Any]:
    """Sums of a few queries at some vectors of the values."""
    sums = [T.alloc_buffer((height, width), "float32", scope="local") for _, width in part]
    for i in range(height):
        for total, (_, width) in zip(sums, part, strict=True):
            store(total, splat(0.0, width), i, 0)
    return sums

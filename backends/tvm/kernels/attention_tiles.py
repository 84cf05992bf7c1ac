"""The two products of an attention in bfloat16, in the tile registers of AMX.

Keys and values lie as the vectors of `attention_bfloat16` read them, which is how tiles do. Of 16 queries a
block of keys is met at a time; of fewer the rest of a tile is computed and not looked at.
"""

from __future__ import annotations

from tvm.tirx.script import builder as T  # noqa: N812

from .amx import LANES, ROWS, Amx, Plain, Register
from .attention_bfloat16 import Bfloat16Products
from .vector import Expr, each, load, splat, store

DEEP = 2 * ROWS  # features, or keys, that a product of tiles sums over
_SUMS = 4
_X, _W, _X_LEFT, _W_LEFT = range(_SUMS, _SUMS + 4)


class TileProducts(Bfloat16Products):
    """Of a thread that gives its tiles back at the end."""

    step, columns = DEEP, LANES

    def _reserve(self) -> None:
        super()._reserve()
        # A block of keys is half as many pairs, which may be no whole number of tiles.
        self._whole, self._left = divmod(self.kernel.block // 2, ROWS)
        width = min(self.width, _SUMS * LANES)
        self._sums = T.alloc_buffer((ROWS, width), "float32", scope="global")
        with T.serial(0, ROWS) as row:  # TVM narrows a buffer of which it sees a part used; it sees no tiles
            each(width, self.lanes, lambda column, lanes: store(self._sums, splat(0.0, lanes), row, column))
        registers = [Register("float32")] * _SUMS + [Register("uint16")] * 2
        if self._left:
            registers += [Register("uint16", ROWS, 4 * self._left), Register("uint16", self._left)]
        self._tiles = (Amx if self.kernel.machine.tiles == "amx" else Plain)(registers)

    def release(self) -> None:
        self._tiles.release()

    def score(self, height: Expr, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        lanes, kernel, tiles = self.lanes, self.kernel, self._tiles
        self._begin(height, row, head)
        across = range(kernel.block // LANES)
        first, end = T.bind(low // kernel.block), T.bind(kernel.blocks(seen))
        with T.serial(first, end) as number:
            block = T.bind(kernel.block_at(number))
            for v in across:
                tiles.zero(v)
            with T.serial(0, self.dim // DEEP) as d:
                tiles.load(_X, self.queries, 0, d * DEEP)
                for v in across:
                    tiles.load(_W, self.keys, d * ROWS, 2 * (block * kernel.block + v * LANES))
                    tiles.multiply_add(v, _X, _W)
            for v in across:
                tiles.store(v, kernel.scores, 0, number * kernel.block + v * LANES)

        def scale(i: Expr) -> None:
            with T.serial(first * (kernel.block // lanes), end * (kernel.block // lanes)) as vector:
                value = load(kernel.scores, i, vector * lanes, lanes=lanes)
                store(kernel.scores, self._scaled(value), i, vector * lanes)

        kernel.each_query(height, scale)

    def weigh(self, height: Expr, row: Expr, head: Expr, low: Expr, seen: Expr) -> None:
        kernel, tiles = self.kernel, self._tiles
        first, end = T.bind(low // kernel.block), T.bind(kernel.blocks(seen))
        kernel.each_query(height, lambda i: self._round_block(i, low, seen, first, end))
        for start in range(0, self.width, _SUMS * LANES):
            columns = range(start, min(start + _SUMS * LANES, self.width), LANES)
            for number in range(len(columns)):
                tiles.zero(number)
            with T.serial(first, end) as number:
                block = T.bind(kernel.block_at(number))
                for pairs in range(0, kernel.block // 2, ROWS):
                    x, w = (_X, _W) if pairs < self._whole * ROWS else (_X_LEFT, _W_LEFT)
                    tiles.load(x, self.probabilities, 0, number * kernel.block + 2 * pairs)
                    for total, column in enumerate(columns):
                        tiles.load(w, self.values, block * (kernel.block // 2) + pairs, 2 * column)
                        tiles.multiply_add(total, x, w)
            for total in range(len(columns)):
                tiles.store(total, self._sums, 0, total * LANES)

            def put(i: Expr, start: int = start) -> None:
                self._put(self._sums, i, start, row, head, _SUMS * LANES)

            kernel.each_query(height, put)

    def _round_block(self, i: Expr, low: Expr, seen: Expr, first: Expr, end: Expr) -> None:
        """A query's probabilities, with zeros before and behind them up to whole blocks."""
        lanes, vectors = self.lanes, self.kernel.block // self.lanes
        self._round_probabilities(i, low, seen)
        for begin, stop in ((first * vectors, low // lanes), ((seen + (lanes - 1)) // lanes, end * vectors)):
            with T.serial(begin, stop) as vector:
                store(self.probabilities, splat(0, lanes, "uint16"), i, vector * lanes)

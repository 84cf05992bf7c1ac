"""A block of a matrix product in the tile registers of AMX, over the panels that products of vectors read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from tvm.tirx.script import builder as T  # noqa: N812

from .amx import LANES, REGISTERS, ROWS, Amx, Plain, Register
from .dot import Dot
from .machine import Machine
from .vector import Expr


class TileProduct:
    """Sums of blocks of x @ w, for the thread that makes it: before its loops, and `release` behind them.

    Steps of k that are too few for a whole tile go through narrower ones. The last columns of x, where they
    are fewer than a step, are left out.

    sums: the buffer that blocks are written to, [rows, columns].

    Args:
        k: columns of x.
        rows: of a block: a multiple of 16, or an expression of a number from 1 to 16.
        columns: of a block, a multiple of 16; with the rows no more than four tiles.
    """

    def __init__(self, machine: Machine, dot: Dot, k: int, rows: Any, columns: int) -> None:
        few = not isinstance(rows, int)
        self._down, self._across = 1 if few else rows // ROWS, columns // LANES
        self._blocks, self._left = divmod(k // dot.step, ROWS)
        self._columns = dot.step * ROWS  # of x in a tile
        self._weights = dot.step * LANES  # in a row of a tile of w
        height = rows if few else ROWS
        registers = [Register(dot.sums, height)] * (self._down * self._across)
        tail = [Register(dot.dtype, height, 4 * self._left), Register(dot.weight, self._left)]
        tail = tail if self._left else []
        # Every tile of an operand has a register, where there are enough.
        spare = REGISTERS - len(registers) - len(tail)
        x, w = (self._down, self._across) if self._down + self._across <= spare else (1, 1)
        first = len(registers)
        self._x, self._w = range(first, first + x), range(first + x, first + x + w)
        registers += [Register(dot.dtype, height)] * x + [Register(dot.weight)] * w + tail
        self._tail = range(len(registers) - 2, len(registers))
        self.sums = T.alloc_buffer((self._down * ROWS, columns), dot.sums, scope="global")
        self._tiles = (Amx if machine.tiles == "amx" else Plain)(registers)

    def compute(self, x: Any, row: Expr, w: Any, panel: Expr, start: tuple[Any, Expr] | None) -> Any:
        """The sums of x[row :] and a panel of w.

        start: a vector and the place in it of the panel's columns, what sums begin with; None for zeros.
        """
        places = list(product(range(self._down), range(self._across)))
        for number, (_, v) in enumerate(places):
            if start is None:
                self._tiles.zero(number)
            else:
                self._tiles.load(number, start[0], start[1] + v * LANES)

        def block(k: Expr, x_in: Sequence[int], w_in: Sequence[int]) -> None:
            held: dict[int, int] = {}
            for number, (i, v) in enumerate(places):
                rows, weights = x_in[i % len(x_in)], w_in[v % len(w_in)]
                if held.get(rows) != i:
                    self._tiles.load(rows, x, row + i * ROWS, k * self._columns)
                if held.get(weights) != v:
                    self._tiles.load(weights, w, panel, k * ROWS, v * self._weights)
                held |= {rows: i, weights: v}
                self._tiles.multiply_add(number, rows, weights)

        if self._blocks:
            with T.serial(0, self._blocks) as k:
                block(k, self._x, self._w)
        if self._left:
            block(self._blocks, self._tail[:1], self._tail[1:])
        for number, (i, v) in enumerate(places):
            self._tiles.store(number, self.sums, i * ROWS, v * LANES)
        return self.sums

    def release(self) -> None:
        """Gives the thread's tiles back."""
        self._tiles.release()

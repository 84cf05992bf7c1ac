"""Packed dense: rows of x times a constant matrix, and whatever follows that needs no other row.

x [m, k] @ w [k, n], float32, bfloat16 or int8. The weight lies in panels (`dot.panels`); a tile of
accumulators stays in registers over the whole of k, of vectors or of AMX. Threads split the rows, so that a
row's norm and rounding follow without a barrier, or the columns, where there are fewer rows than threads can
share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .amx import ROWS, TILES
from .dot import Dot, product_of
from .machine import Machine
from .rows import Finish, Outputs, declare_inputs, declare_outputs, finish_row, rounded
from .tile import Tile
from .tile_product import TileProduct
from .vector import ACTIVATIONS, Expr, cast, lane, lanes_of, load, splat, store

"""An attribute of kernels that use AMX."""
Rows = Literal["float", "bfloat16", "dynamic", "static"]


@dataclass(frozen=True)
class Dense:
    """What a dense kernel computes.

    x: how rows come: float32; bfloat16; "dynamic", int8 with a scale and zero point a row; "static", int8
    with those of the whole tensor folded into the weights' scales and start. activation: a name of
    vector.ACTIVATIONS. gated: columns come in two halves a panel, and the result is the first times the
    second activated (GLU, arXiv:2002.05202). split: what the threads share out.
    """

    k: int
    n: int
    x: Rows = "float"
    bias: bool = True
    activation: str | None = None
    gated: bool = False
    finish: Finish = field(default_factory=Finish)
    split: Literal["rows", "columns"] = "rows"

    @property
    def integers(self) -> bool:
        """Whether sums are integers, to be rescaled."""
        return self.x in ("dynamic", "static")


def dense(spec: Dense, machine: Machine, tile: Tile) -> tirx.PrimFunc:
    """The kernel for any number of rows m.

    Parameters, each only where the spec has it: x [m, k]; x_scale [m] float32 and x_zero [m] int32 (dynamic);
    w, packed; w_scale [n] float32 and w_sums [n] int32 (dynamic: column sums; static: what sums start at);
    bias [n]; those of `Finish`. [n] vectors are padded to whole panels. Last come the outputs of `Finish`.
    """
    if spec.split == "columns" and spec.finish.whole:
        raise ValueError("a kernel that splits columns never holds a whole row")
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        _Kernel(spec, machine, tile).build()
    return builder.get()


class _Kernel:
    def __init__(self, spec: Dense, machine: Machine, tile: Tile) -> None:
        self.spec, self.machine, self.tile = spec, machine, tile
        self.stored: Dot = product_of(spec.finish.rounds, machine)
        self.lanes = machine.lanes
        self.vectors = tile.columns // machine.lanes
        self.width = tile.columns // 2 if spec.gated else tile.columns  # results of a panel
        self.panels = -(-spec.n // self.width)
        self.product: Dot = product_of(spec.x, machine)

    def build(self) -> None:
        spec, padded = self.spec, self.panels * self.tile.columns
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "dense"})
        if self.tile.amx:
            T.func_attr({TILES: True})
        m = tirx.Var("m", "int64")
        vector = lambda name, dtype="float32", size=padded: T.arg(name, T.buffer((size,), dtype))
        self.x = T.arg("x", T.buffer((m, spec.k), self.product.dtype))
        if spec.x == "dynamic":
            self.x_scale, self.x_zero = vector("x_scale", size=m), vector("x_zero", "int32", m)
        step = self.product.step
        shape = (self.panels, -(-spec.k // step), self.tile.columns * step)
        self.w = T.arg("w", T.buffer(shape, self.product.weight))
        if spec.integers:
            self.w_scale, self.w_sums = vector("w_scale"), vector("w_sums", "int32")
        if spec.bias:
            self.bias = vector("bias")
        buffers = declare_inputs(spec.finish, m, spec.n, self.panels * self.width)
        buffers |= declare_outputs(spec.finish, m, spec.n, self.stored)
        self.outputs = Outputs(**buffers)
        self.rows = T.bind(T.cast(m, "int32"))
        with T.parallel(0, self.machine.threads) as thread:
            self.thread = thread
            if self.tile.amx:
                self._by_tiles()
                return
            with T.If(self.rows >= self.tile.rows):
                with T.Then():
                    self._share(self.tile.rows)
                with T.Else():  # too few for a tile, which may not reach in front of the first row
                    self._share(1)

    def _by_tiles(self) -> None:
        """Blocks of as many rows as the tile has where every thread finds them; else of up to 16, so that
        threads have equal shares."""
        sharing = self.machine.threads if self.spec.split == "rows" else 1
        height = T.bind(T.max(T.min((self.rows + (sharing - 1)) // sharing, ROWS), 1))
        if self.tile.rows == ROWS:
            self._in_tiles(height)
            return
        with T.If(self.rows >= self.tile.rows * sharing):
            with T.Then():
                self._in_tiles(self.tile.rows)
            with T.Else():
                self._in_tiles(height)

    def _in_tiles(self, height: Expr) -> None:
        self.tiles = TileProduct(self.machine, self.product, self.spec.k, height, self.tile.columns)
        self._share(height)
        self.tiles.release()

    def _share(self, height: Expr) -> None:
        """This thread's share, in tiles of `height` rows; the last tile lies over rows already done."""
        tiles = T.bind((self.rows + (height - 1)) // height)
        if self.spec.split == "columns":
            per = -(-self.panels // self.machine.threads)
            first, last = self.thread * per, T.min((self.thread + 1) * per, self.panels)
            self._panels(height, first, last, tirx.const(0, "int32"), tiles, None)
            return
        per = T.bind((tiles + (self.machine.threads - 1)) // self.machine.threads)
        begin = T.bind(self.thread * per)
        mine = T.bind(T.max(T.min(per, tiles - begin), 0))
        if not self.spec.finish.whole:
            self._panels(height, tirx.const(0, "int32"), tirx.const(self.panels, "int32"), begin, mine, None)
            return
        width, most = self.panels * self.width, height if isinstance(height, int) else ROWS
        deep = max(1, min(self.machine.scratch // (4 * width * most), 64))
        held = T.alloc_buffer((deep * most, width), "float32", scope="global")
        with T.serial(0, (mine + (deep - 1)) // deep) as block:
            start = T.bind(begin + block * deep)
            count = T.bind(T.min(mine - block * deep, deep))
            self._panels(height, tirx.const(0, "int32"), tirx.const(self.panels, "int32"), start, count, held)
            with T.serial(0, count * height) as slot:
                tile = T.bind(start + slot // height)
                number = T.bind(self._first_row(tile, height) + slot % height)

                def value(column: Expr, width: int, slot: Expr = slot) -> Expr:
                    return load(held, slot, column, lanes=width)

                # Once: the tile before the last may be another thread's, and a row is finished in its output.
                with T.If(number >= tile * height), T.Then():
                    finish_row(
                        self.spec.finish, self.outputs, self.stored, self.lanes, self.spec.n, number, value,
                        (held, slot),
                    )  # fmt: skip

    def _first_row(self, tile: Expr, height: Expr) -> Expr:
        return T.min(tile * height, self.rows - height)

    def _panels(self, height: Expr, first: Expr, last: Expr, start: Expr, count: Expr, held: Any) -> None:
        with T.serial(first, last) as panel, T.serial(0, count) as number:
            row = T.bind(self._first_row(start + number, height))
            sums = self._product(height, panel, row)

            def finish(i: Expr) -> None:
                for v in range(self.width // self.lanes):
                    value = self._value(sums, i, v, panel, row)
                    column = panel * self.width + v * self.lanes
                    if held is None:
                        self._write(value, row + i, column, v)
                    else:
                        store(held, value, number * height + i, column)

            self._each_row(height, finish)

    def _each_row(self, height: Expr, do: Callable[[Expr], None]) -> None:
        """do(number) of every row of a tile; written out where sums are in registers of vectors."""
        if self.tile.amx:
            with T.serial(0, height) as i:
                do(i)
        else:
            for i in range(height):
                do(i)

    def _product(self, height: Expr, panel: Expr, row: Expr) -> Any:
        """The sums of one tile, [height, columns]."""
        spec, lanes = self.spec, self.lanes
        steps, left = divmod(spec.k, self.product.step)
        if self.tile.amx:
            vector = self._starts()
            start = None if vector is None else (vector, panel * self.tile.columns)
            sums = self.tiles.compute(self.x, row, self.w, panel, start)
        else:
            sums = T.alloc_buffer((height, self.tile.columns), self.product.sums, scope="local")
            for v in range(self.vectors):
                begin = T.bind(self._start(panel * self.tile.columns + v * lanes))
                for i in range(height):
                    store(sums, begin, i, v * lanes)
            with T.serial(0, steps) as k:
                self._step(height, sums, panel, row, k, self.product.step)
        if left:
            self._step(height, sums, panel, row, steps, left)
        return sums

    def _step(self, height: Expr, sums: Any, panel: Expr, row: Expr, k: Expr, count: int) -> None:
        """Adds one multiply-add of each vector of a tile, of `count` columns of x."""
        product, lanes = self.product, self.lanes
        weights = [T.bind(product.weights(self.w, panel, k, v)) for v in range(self.vectors)]

        def add(i: Expr) -> None:
            x = T.bind(product.spread(self.x, row + i, k * product.step, count))
            for v in range(self.vectors):
                before = load(sums, i, v * lanes, lanes=lanes)
                store(sums, product.madd(before, x, weights[v]), i, v * lanes)

        self._each_row(height, add)

    def _starts(self) -> Any:
        """The vector [n] that sums begin with; None for zeros."""
        if self.spec.integers:
            return self.w_sums if self.spec.x == "static" else None
        return self.bias if self.spec.bias else None

    def _start(self, column: Expr) -> Expr:
        vector = self._starts()
        if vector is None:
            return splat(0 if self.spec.integers else 0.0, self.lanes, self.product.sums)
        return load(vector, column, lanes=self.lanes)

    def _value(self, sums: Any, i: Expr, v: int, panel: Expr, row: Expr) -> Expr:
        """The activated float result of one vector of a tile."""
        activate: Callable[[Expr], Expr] = (
            ACTIVATIONS[self.spec.activation] if self.spec.activation else T.bind
        )
        if not self.spec.gated:
            return T.bind(activate(self._floats(sums, i, v, panel, row)))
        gate = self._floats(sums, i, v + self.vectors // 2, panel, row)
        return T.bind(activate(gate) * self._floats(sums, i, v, panel, row))

    def _floats(self, sums: Any, i: Expr, v: int, panel: Expr, row: Expr) -> Expr:
        """One vector of sums, rescaled where they are integers, with the bias."""
        spec, lanes = self.spec, self.lanes
        column = panel * self.tile.columns + v * lanes
        value = load(sums, i, v * lanes, lanes=lanes)
        if not spec.integers:
            return value
        scale = load(self.w_scale, column, lanes=lanes)
        if spec.x == "dynamic":
            shift = self.x_zero[row + i] - self.product.bias
            value = value - splat(shift, lanes) * load(self.w_sums, column, lanes=lanes)
            scale = scale * splat(self.x_scale[row + i], lanes)
        value = cast("float32", value) * scale
        return value + load(self.bias, column, lanes=lanes) if spec.bias else value

    def _write(self, value: Expr, row: Expr, column: Expr, v: int) -> None:
        """Straight to the outputs; the last panel may end within a vector."""
        ends = self.spec.n - (self.panels - 1) * self.width - v * self.lanes
        if ends >= self.lanes:
            self._put(value, row, column)
            return
        with T.If(column + self.lanes <= self.spec.n):
            with T.Then():
                self._put(value, row, column)
            with T.Else():
                for number in range(max(ends, 0)):
                    self._put(lane(value, number), row, column + number)

    def _put(self, value: Expr, row: Expr, column: Expr) -> None:
        finish, outputs = self.spec.finish, self.outputs
        if finish.residual:
            value = T.bind(value + load(outputs.residual, row, column, lanes=lanes_of(value)))
        if finish.floats:
            store(outputs.floats, value, row, column)
        if finish.rounds != "no":
            store(outputs.stored, rounded(value, finish, outputs, self.stored), row, column)

"""Rows times a weight of 4- or 8-bit codes with a scale and a zero for each group of inputs.

x [m, k] @ ((codes - zeros) * scales) [k, n], for the few rows of decoding: the weight is read once, packed,
which is what takes the time. Rows are normalised here where a norm comes before: every thread does that for
itself, which is cheaper than waiting for another. A group's sum is rescaled once; where rows may be rounded,
each group of a row gets a scale (symmetric, as MatMulNBits with accuracy_level=4 in MLAS), and products are
of integers. Threads split the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .codes import Codes, codes_of
from .grouped_rows import GroupedRows
from .machine import Machine
from .rows import Norm
from .vector import ACTIVATIONS, Expr, cast, lane, lanes_of, load, splat, store

_BLOCK = 32  # rows that are made ready at once


@dataclass(frozen=True)
class FewBits:
    """What the kernel computes.

    k, n: of the weight. bits: 4 or 8, of a code. group: inputs that share a scale; a multiple of 16. rows:
    "int8" rounds them by group. zeros: what they are stored as, or the one number that all of them are.
    scales: dtype. norm: of the rows, before anything else. gated: columns come in two halves a panel, and the
    result is the first times the second activated.
    """

    k: int
    n: int
    bits: Literal[4, 8]
    group: int
    rows: Literal["float32", "int8"]
    zeros: int | Literal["uint8", "int8", "float16", "float32"]
    scales: Literal["float16", "float32"]
    norm: Norm | None = None
    bias: bool = False
    activation: str | None = None
    gated: bool = False
    residual: bool = False

    @property
    def groups(self) -> int:
        return -(-self.k // self.group)


def columns_of(machine: Machine) -> int:
    """Columns of a panel: two vectors."""
    return 2 * machine.lanes


def few_bits(spec: FewBits, machine: Machine) -> tirx.PrimFunc:
    """The kernel for any number of rows m.

    Parameters, each only where the spec has it: x [m, k] float32; gamma, beta [k] of the norm; w, of
    `codes.packed`; scales and zeros [panels, groups, columns]; bias, padded to whole panels; residual [m, n];
    out [m, n] float32.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        _Kernel(spec, machine).build()
    return builder.get()


class _Kernel:
    def __init__(self, spec: FewBits, machine: Machine) -> None:
        self.spec, self.machine, self.lanes = spec, machine, machine.lanes
        self.codes: Codes = codes_of(machine, spec.rows, spec.bits)
        self.columns = columns_of(machine)
        self.vectors = self.columns // self.lanes
        self.width = self.columns // 2 if spec.gated else self.columns  # results of a panel
        self.panels = -(-spec.n // self.width)
        self.height = 4 if machine.registers >= 32 else 2
        self.sums = "int32" if spec.rows == "int8" else "float32"

    def build(self) -> None:
        spec, panels = self.spec, self.panels
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "few_bits"})
        m = tirx.Var("m", "int64")
        argument = lambda name, shape, dtype="float32": T.arg(name, T.buffer(shape, dtype))
        x = argument("x", (m, spec.k))
        gamma = argument("gamma", (spec.k,)) if spec.norm and spec.norm.scale else None
        beta = argument("beta", (spec.k,)) if spec.norm and spec.norm.shift else None
        size = spec.group * spec.bits // 8 // self.codes.step
        self.w = argument("w", (panels, spec.groups * size, self.columns * self.codes.step), self.codes.dtype)
        self.scales = argument("scales", (panels, spec.groups, self.columns), spec.scales)
        if isinstance(spec.zeros, str):
            self.zeros = argument("zeros", (panels, spec.groups, self.columns), spec.zeros)
        if spec.bias:
            self.bias = argument("bias", (panels * self.columns,))
        if spec.residual:
            self.residual = argument("residual", (m, spec.n))
        self.out = argument("out", (m, spec.n))
        self.count = T.bind(T.cast(m, "int32"))
        per = -(-panels // self.machine.threads)
        with T.parallel(0, self.machine.threads) as thread:
            self.ready = GroupedRows.allocated(_BLOCK, spec.k, spec.group, self.codes.x, self.machine)
            with T.serial(0, (self.count + (_BLOCK - 1)) // _BLOCK) as block:
                first = T.bind(block * _BLOCK)
                rows = T.bind(T.min(self.count - first, _BLOCK))
                with T.serial(0, rows) as slot:
                    self.ready.fill(slot, x, first + slot, spec.norm, gamma, beta)
                with T.serial(thread * per, T.min((thread + 1) * per, panels)) as panel:
                    self._panel(panel, first, rows)

    def _panel(self, panel: Expr, first: Expr, rows: Expr) -> None:
        """Tiles of `height` rows; the last one lies over rows already done."""
        with T.If(rows >= self.height):
            with T.Then(), T.serial(0, (rows + (self.height - 1)) // self.height) as tile:
                slot = T.bind(T.min(tile * self.height, rows - self.height))
                self._tile(self.height, panel, first, slot)
            with T.Else(), T.serial(0, rows) as slot:
                self._tile(1, panel, first, slot)

    def _tile(self, height: int, panel: Expr, first: Expr, slot: Expr) -> None:
        spec, lanes = self.spec, self.lanes
        total = T.alloc_buffer((height, self.columns), "float32", scope="local")
        for i in range(height):
            for v in range(self.vectors):
                store(total, splat(0.0, lanes), i, v * lanes)
        with T.serial(0, spec.groups) as group:
            sums = self._group(height, panel, slot, group)
            for v in range(self.vectors):
                scale = T.bind(cast("float32", load(self.scales, panel, group, v * lanes, lanes=lanes)))
                for i in range(height):
                    value = cast("float32", load(sums, i, v * lanes, lanes=lanes))
                    if isinstance(spec.zeros, str):
                        zero = cast("float32", load(self.zeros, panel, group, v * lanes, lanes=lanes))
                        value = value - zero * splat(
                            T.cast(self.ready.totals[slot + i, group], "float32"), lanes
                        )
                    factor = scale
                    if spec.rows == "int8":
                        factor = scale * splat(self.ready.factor[slot + i, group], lanes)
                    before = load(total, i, v * lanes, lanes=lanes)
                    store(total, T.fma(value, factor, before), i, v * lanes)
        for i in range(height):
            for v in range(self.width // lanes):
                self._write(
                    self._value(total, i, v, panel), first + slot + i, panel * self.width + v * lanes, v
                )

    def _group(self, height: int, panel: Expr, slot: Expr, group: Expr) -> Any:
        """Sums of x times codes over one group, less the zero that all columns share."""
        spec, lanes, codes = self.spec, self.lanes, self.codes
        sums = T.alloc_buffer((height, self.columns), self.sums, scope="local")
        shared = 0 if isinstance(spec.zeros, str) else spec.zeros - codes.shift
        for i in range(height):
            start: Expr = tirx.const(0, self.sums)
            if shared:
                start = self.ready.totals[slot + i, group] * tirx.const(-shared, self.sums)
            start = T.bind(splat(start, lanes))
            for v in range(self.vectors):
                store(sums, start, i, v * lanes)
        parts = 8 // spec.bits  # codes of a byte lie half a group apart
        steps = spec.group // codes.step // parts
        with T.serial(0, steps) as k:
            for v in range(self.vectors):
                width = lanes * codes.step
                stored = T.bind(load(self.w, panel, group * steps + k, v * width, lanes=width))
                for part, weights in enumerate(codes.apart(stored)):
                    weights = T.bind(weights)
                    for i in range(height):
                        column = group * spec.group + (part * steps + k) * codes.step
                        x = codes.spread(self.ready.ready, slot + i, column)
                        before = load(sums, i, v * lanes, lanes=lanes)
                        store(sums, codes.madd(before, weights, x), i, v * lanes)
        return sums

    def _value(self, total: Any, i: int, v: int, panel: Expr) -> Expr:
        """One vector of results before the residual."""

        def biased(vector: int) -> Expr:
            value = load(total, i, vector * self.lanes, lanes=self.lanes)
            if self.spec.bias:
                at = panel * self.columns + vector * self.lanes
                value = value + load(self.bias, at, lanes=self.lanes)
            return value

        activate = ACTIVATIONS[self.spec.activation] if self.spec.activation else T.bind
        if not self.spec.gated:
            return T.bind(activate(biased(v)))
        return T.bind(activate(biased(v + self.vectors // 2)) * biased(v))

    def _write(self, value: Expr, number: Expr, column: Expr, v: int) -> None:
        """The last panel may end within a vector."""
        ends = self.spec.n - (self.panels - 1) * self.width - v * self.lanes
        if ends >= self.lanes:
            self._put(value, number, column)
            return
        with T.If(column + self.lanes <= self.spec.n):
            with T.Then():
                self._put(value, number, column)
            with T.Else():
                for place in range(max(ends, 0)):
                    self._put(lane(value, place), number, column + place)

    def _put(self, value: Expr, number: Expr, column: Expr) -> None:
        if self.spec.residual:
            value = value + load(self.residual, number, column, lanes=lanes_of(value))
        store(self.out, value, number, column)

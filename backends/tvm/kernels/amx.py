"""The tile registers of AMX: eight of 16 rows of 64 bytes, and the product of two of them added to a third.

* amx: the processor's instructions (Intel, Architecture Instruction Set Extensions, chapter 3).
* plain: what they do in TIR, sum by sum, for machines without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812

from .vector import Expr, cast, each, load, reinterpret, splat, store

ROWS, BYTES, REGISTERS = 16, 64, 8
LANES = BYTES // 4  # sums in a row
TILES = "graphwright.tiles"  # what a kernel that uses them has as an attribute
_PRODUCTS = {"uint8": "tdpbusd", "uint16": "tdpbf16ps"}


@dataclass(frozen=True)
class Register:
    """dtype: of its elements. rows: up to 16, a number or an expression of one above 0. bytes: of a row."""

    dtype: str
    rows: Any = ROWS
    bytes: int = BYTES

    @property
    def columns(self) -> int:
        return self.bytes // np.dtype(self.dtype).itemsize


class Amx:
    """Registers of the thread that makes it, by number; their contents are undefined to begin with.

    A tile lies in the last two axes of a buffer from an index on; of a vector every row is the same.
    """

    def __init__(self, registers: Sequence[Register]) -> None:
        self.registers = registers
        setup = T.alloc_buffer((BYTES,), "uint8", scope="global")
        store(setup, splat(0, BYTES, "uint8"), 0)
        T.buffer_store(setup, tirx.const(1, "uint8"), [0])  # the one palette that there is
        for number, register in enumerate(registers):
            T.buffer_store(setup, tirx.const(register.bytes, "uint8"), [16 + 2 * number])
            T.buffer_store(setup, T.cast(register.rows, "uint8"), [48 + number])
        _call("ldtilecfg", T.address_of(setup[0]))

    def zero(self, number: int) -> None:
        """Sets a register to zeros."""
        _call("tilezero", _number(number))

    def load(self, number: int, buffer: Any, *index: Expr) -> None:
        """Fills a register from a buffer."""
        _call("tileloadd64", _number(number), T.address_of(buffer[index]), _stride(buffer))

    def multiply_add(self, sums: int, x: int, w: int) -> None:
        """sums [m, n] += x [m, k] @ w, whose row r has steps r of all its columns side by side."""
        name = _PRODUCTS[self.registers[x].dtype]
        _call(name, _number(sums), _number(x), _number(w))

    def store(self, number: int, buffer: Any, *index: Expr) -> None:
        """Writes a register to a buffer."""
        _call("tilestored64", _number(number), T.address_of(buffer[index]), _stride(buffer))

    def release(self) -> None:
        """The thread has no tiles any more: whatever saves its state need not save them."""
        _call("tilerelease")


def _call(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_llvm_intrin("int32", T.llvm_lookup_intrinsic_id(f"llvm.x86.{name}"), *arguments))


def _number(number: int) -> Expr:
    return tirx.const(number, "uint8")


def _stride(buffer: Any) -> Expr:
    """Bytes from one row to the next."""
    wide = np.dtype(str(buffer.dtype)).itemsize * int(buffer.shape[-1])
    return tirx.const(wide if len(buffer.shape) > 1 else 0, "int64")


class Plain(Amx):
    """The same registers as buffers; sums are rounded as the processor rounds them, but may be subnormal."""

    def __init__(self, registers: Sequence[Register]) -> None:
        self.registers = registers
        self.held = [T.alloc_buffer((ROWS, r.columns), r.dtype, scope="global") for r in registers]

    def zero(self, number: int) -> None:
        register, held = self.registers[number], self.held[number]
        with T.serial(0, register.rows) as row:
            store(held, splat(0, register.columns, register.dtype), row, 0)

    def load(self, number: int, buffer: Any, *index: Expr) -> None:
        register, held = self.registers[number], self.held[number]
        with T.serial(0, register.rows) as row:
            copy = lambda column, lanes: store(
                held, load(buffer, *_moved(index, row, column), lanes=lanes), row, column
            )
            each(register.columns, LANES, copy)

    def store(self, number: int, buffer: Any, *index: Expr) -> None:
        register, held = self.registers[number], self.held[number]
        with T.serial(0, register.rows) as row:
            values = load(held, row, 0, lanes=register.columns)
            store(buffer, values, *_moved(index, row, 0))

    def multiply_add(self, sums: int, x: int, w: int) -> None:
        add = _integers if self.registers[x].dtype == "uint8" else _pairs
        with T.serial(0, self.registers[x].rows) as row:
            add(self.held[sums], self.held[x], self.held[w], row, self.registers[x].bytes // 4)

    def release(self) -> None:
        pass


def _moved(index: Sequence[Expr], row: Expr, column: Expr) -> list[Expr]:
    """The place `row` rows below and `column` columns behind an index."""
    *before, last = index
    return [*before[:-1], before[-1] + row, last + column] if before else [last + column]


def _integers(sums: Any, x: Any, w: Any, row: Expr, steps: int) -> None:
    """Four products of u8 and s8 at a step, in int32."""
    with T.serial(0, steps) as k:
        for byte in range(4):
            own = splat(T.cast(x[row, 4 * k + byte], "int32"), LANES)
            product = own * cast("int32", w[k, T.ramp(byte, 4, LANES)])
            store(sums, load(sums, row, 0, lanes=LANES) + product, row, 0)


def _pairs(sums: Any, x: Any, w: Any, row: Expr, steps: int) -> None:
    """Products of bfloat16 with sums in float32: even and odd ones apart, and both added in the end."""
    halves = T.alloc_buffer((2, LANES), "float32", scope="local")
    for half in range(2):
        store(halves, splat(0.0, LANES), half, 0)
    wide = lambda value, lanes: reinterpret("float32", cast("uint32", value) << splat(16, lanes, "uint32"))
    with T.serial(0, steps) as k:
        for half in range(2):
            own = splat(wide(x[row, 2 * k + half], 1), LANES)
            weight = wide(w[k, T.ramp(half, 2, LANES)], LANES)
            store(halves, T.fma(own, weight, load(halves, half, 0, lanes=LANES)), half, 0)
    both = load(halves, 0, 0, lanes=LANES) + load(halves, 1, 0, lanes=LANES)
    store(sums, load(sums, row, 0, lanes=LANES) + both, row, 0)

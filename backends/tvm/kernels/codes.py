"""Weights stored as codes of 4 or 8 bits: how they lie, how they come apart, how they are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tvm.tirx.script import builder as T  # noqa: N812

from .machine import Machine
from .vector import Expr, at, cast, intrinsic, splat


@dataclass(frozen=True)
class Codes:
    """bits: of a code. step: inputs that one multiply-add takes. dtype: of what is stored. x: dtype of rows.
    shift: taken off every code before it is stored. madd: (sums, codes of a vector of columns, x in every
    lane) -> sums."""

    bits: int
    step: int
    dtype: Literal["uint8", "int8"]
    x: str
    shift: int
    lanes: int
    madd: Callable[[Expr, Expr, Expr], Expr]

    def apart(self, stored: Expr) -> list[Expr]:
        """The codes of a vector: with 4 bits low halves of bytes, then high ones."""
        if self.bits == 8:
            return [stored]
        wide = self.lanes * self.step
        if self.step == 1:  # in lanes of 32 bits, where they are wanted
            stored = T.bind(cast("int32", stored))
            return [stored & splat(15, wide, "int32"), stored >> splat(4, wide, "int32")]
        return [stored & splat(15, wide, self.dtype), stored >> splat(4, wide, self.dtype)]

    def spread(self, x: Any, row: Expr, column: Expr) -> Expr:
        """x[row, column : column + step] in every lane."""
        if self.step == 1:
            return splat(x[row, column], self.lanes)
        return splat(T.reinterpret("int32", x[row, at(column, self.step)]), self.lanes)


def codes_of(machine: Machine, rows: str, bits: int) -> Codes:
    """The product of a machine with rows of this dtype, float32 or int8."""
    lanes = machine.lanes
    if rows == "float32":
        madd = lambda sums, codes, x: T.fma(cast("float32", codes), x, sums)
        return Codes(bits, 1, "uint8", "float32", 0, lanes, madd)
    product = machine.product
    if product in ("vnni512", "vnni256"):
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return Codes(bits, 4, "uint8", "int8", 0, lanes, _quads(name, lanes, "uint8"))
    if product in ("madd512", "madd256"):
        name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return Codes(bits, 2, "uint8", "int16", 0, lanes, _pairs(name, lanes))
    if product == "sdot":
        # Codes are signed there: those of 8 bits are stored less 128, those of 4 bits are small.
        name, shift = "llvm.aarch64.neon.sdot.v4i32.v16i8", 128 if bits == 8 else 0
        dtype: Literal["uint8", "int8"] = "int8" if shift else "uint8"
        return Codes(bits, 4, dtype, "int8", shift, lanes, _quads(name, lanes, "int8"))
    madd = lambda sums, codes, x: sums + cast("int32", codes) * cast("int32", x)
    return Codes(bits, 1, "uint8", "int16", 0, lanes, madd)


def _quads(name: str, lanes: int, kind: str) -> Callable[[Expr, Expr, Expr], Expr]:
    bytes_ = 4 * lanes

    def madd(sums: Expr, codes: Expr, x: Expr) -> Expr:
        codes = T.reinterpret(f"{kind}x{bytes_}", codes)
        return intrinsic(name, f"int32x{lanes}", sums, codes, T.reinterpret(f"int8x{bytes_}", x))

    return madd


def _pairs(name: str, lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    def madd(sums: Expr, codes: Expr, x: Expr) -> Expr:
        x = T.reinterpret(f"int16x{2 * lanes}", x)
        return sums + intrinsic(name, f"int32x{lanes}", cast("int16", codes), x)

    return madd


def packed(codes: np.ndarray, how: Codes, group: int, columns: int) -> np.ndarray:
    """uint8 [groups * group, n] -> [ceil(n / columns), groups * group * bits / 8 / step, columns * step].

    Within a group the codes of a byte lie half a group apart; columns past n are zero.
    """
    k, n = codes.shape
    count, parts = -(-n // columns), 8 // how.bits
    padded = np.zeros((k, count * columns), np.uint8)
    padded[:, :n] = codes - np.uint8(how.shift)
    halves = padded.reshape(k // group, parts, group // parts, count * columns)
    stored = halves[:, 0] if parts == 1 else halves[:, 0] | halves[:, 1] << 4
    split = stored.reshape(-1, how.step, count, columns).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(split).reshape(count, -1, columns * how.step).view(how.dtype)


def by_panel(values: np.ndarray, columns: int) -> np.ndarray:
    """[groups, n] -> [ceil(n / columns), groups, columns]; zero past n."""
    groups, n = values.shape
    count = -(-n // columns)
    padded = np.zeros((groups, count * columns), values.dtype)
    padded[:, :n] = values
    return np.ascontiguousarray(padded.reshape(groups, count, columns).transpose(1, 0, 2))

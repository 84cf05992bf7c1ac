"""The product of each instruction set: how weights lie, what rows are stored as, one multiply-add.

In int8, rows are u8 values q with a zero point and weights are s8. `Dot.bias` is what is subtracted from q to
store it.

* vnni: VPDPBUSD adds four u8 x s8 products to an int32 lane.
* madd: without VNNI, VPMADDUBSW would saturate at 16 bits, so rows are stored as s16 and weights widened to
  s16 for VPMADDWD, which adds two products to a lane, exactly.
* sdot: Arm's SDOT is s8 x s8, so rows are stored less 128.
* widen: NEON without SDOT: rows as s16, one product a lane by SMLAL.

In bfloat16, rows and weights are kept as uint16, and two products are added to a float32 lane (`bfloat16`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812

from .bfloat16 import multiply_add, narrow
from .machine import Machine, Product
from .vector import Expr, at, cast, intrinsic, reinterpret, splat


@dataclass(frozen=True)
class Dot:
    """step: rows of the weight that one multiply-add takes. dtype: what rows of x are stored as.
    bias: q - bias is stored. madd: (sums, broadcast row values, weights) -> sums. weight, sums: dtypes.
    narrow: float32 as stored, where that needs no scale."""

    step: int
    dtype: str
    bias: int
    lanes: int
    madd: Callable[[Expr, Expr, Expr], Expr]
    weight: str = "int8"
    sums: str = "int32"
    narrow: Callable[[Expr], Expr] | None = None

    def spread(self, x: Any, row: Expr, column: Expr, count: int) -> Expr:
        """x[row, column : column + count] in every lane, zeros behind them up to a step."""
        if self.step == 1:
            return splat(cast(self.sums, x[row, column]), self.lanes)
        if count == self.step:
            return splat(T.reinterpret("int32", x[row, at(column, self.step)]), self.lanes)
        bits = 32 // self.step
        parts = [cast("uint32", reinterpret(f"uint{bits}", x[row, column + i])) for i in range(count)]
        word = sum(part << tirx.const(bits * i, "uint32") for i, part in enumerate(parts))
        return splat(T.reinterpret("int32", word), self.lanes)

    def weights(self, w: Any, panel: Expr, k: Expr, vector: int) -> Expr:
        """The weights of one vector of columns at one step."""
        width = self.lanes * self.step
        return w[panel, k, at(vector * width, width)]


def _as(dtype: str, value: Expr) -> Expr:
    return T.reinterpret(dtype, value)


def _vnni(lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return lambda sums, x, w: intrinsic(name, f"int32x{lanes}", sums, _as(f"uint8x{4 * lanes}", x), w)


def _pairs(lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"

    def madd(sums: Expr, x: Expr, w: Expr) -> Expr:
        return sums + intrinsic(name, f"int32x{lanes}", _as(f"int16x{2 * lanes}", x), cast("int16", w))

    return madd


def _sdot(sums: Expr, x: Expr, w: Expr) -> Expr:
    return intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", "int32x4", sums, _as("int8x16", x), w)


def _widen(sums: Expr, x: Expr, w: Expr) -> Expr:
    return sums + x * cast("int32", w)


_DOTS: dict[Product, Dot] = {
    "vnni512": Dot(4, "uint8", 0, 16, _vnni(16)),
    "vnni256": Dot(4, "uint8", 0, 8, _vnni(8)),
    "madd512": Dot(2, "int16", 0, 16, _pairs(16)),
    "madd256": Dot(2, "int16", 0, 8, _pairs(8)),
    "sdot": Dot(4, "int8", 128, 4, _sdot),
    "widen": Dot(1, "int16", 0, 4, _widen),
}


def dot(machine: Machine) -> Dot:
    """The int8 product of a machine."""
    return _DOTS[machine.product]


def float_dot(machine: Machine) -> Dot:
    """The float32 product of a machine."""
    return Dot(1, "float32", 0, machine.lanes, lambda sums, x, w: T.fma(x, w, sums), "float32", "float32")


def bfloat16_dot(machine: Machine) -> Dot:
    """The bfloat16 product of a machine."""
    madd = multiply_add(machine)
    return Dot(2, "uint16", 0, machine.lanes, madd, "uint16", "float32", narrow(machine))


def product_of(rows: str, machine: Machine) -> Dot:
    """The product that takes rows of a kind: "float", "bfloat16", or a way to int8."""
    return {"float": float_dot, "bfloat16": bfloat16_dot}.get(rows, dot)(machine)


def panels(weight: np.ndarray, columns: int, step: int = 1) -> np.ndarray:
    """[k, n] -> [ceil(n / columns), ceil(k / step), columns * step]: what a tile reads lies in one stretch.

    Columns past n and rows past k are zero.
    """
    k, n = weight.shape
    steps, count = -(-k // step), -(-n // columns)
    padded = np.zeros((steps * step, count * columns), weight.dtype)
    padded[:k, :n] = weight
    split = padded.reshape(steps, step, count, columns)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1)).reshape(count, steps, columns * step)


def halved(first: np.ndarray, second: np.ndarray, columns: int) -> np.ndarray:
    """Two arrays whose last axis is n side by side, so that each panel of `columns` has a stretch of both."""
    half = columns // 2
    count = -(-first.shape[-1] // half)
    spare = [(0, 0)] * (first.ndim - 1) + [(0, count * half - first.shape[-1])]
    parts = [np.pad(part, spare).reshape(*part.shape[:-1], count, half) for part in (first, second)]
    return np.concatenate(parts, -1).reshape(*first.shape[:-1], count * columns)

"""bfloat16: the upper half of a float32, kept as uint16. Rounding to it, and its product with float32 sums.

* dpbf16: AVX512-BF16's VDPBF16PS adds two products to a lane, the odd one first, each sum rounded to float32;
  numbers below 1.2e-38 are zeros to it.
* widen: the same sums in float32, where a processor has no such instruction.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from ..machine.bfloat16 import DOT, NARROW
from .machine import Machine
from .share import shared
from .vector import Expr, cast, each, intrinsic, lanes_of, load, reinterpret, splat, store


def multiply_add(machine: Machine) -> Callable[[Expr, Expr, Expr], Expr]:
    """(float32 sums, pairs of x as int32, weights as uint16) -> sums."""
    return _dot if machine.bfloat16 == "dpbf16" else _widened


def _dot(sums: Expr, x: Expr, w: Expr) -> Expr:
    lanes = lanes_of(sums)
    pairs = T.reinterpret(f"int32x{lanes}", w)
    return intrinsic(DOT, f"float32x{lanes}", sums, x, pairs)


def _widened(sums: Expr, x: Expr, w: Expr) -> Expr:
    lanes = lanes_of(sums)
    w = T.bind(T.reinterpret(f"int32x{lanes}", w))
    high, half = splat(-1 << 16, lanes, "int32"), splat(16, lanes, "int32")
    odd = T.fma(reinterpret("float32", x & high), reinterpret("float32", w & high), sums)
    return T.fma(reinterpret("float32", x << half), reinterpret("float32", w << half), odd)


def narrow(machine: Machine) -> Callable[[Expr], Expr]:
    """float32 -> uint16, rounded to the nearest bfloat16, ties to even."""

    def narrowed(value: Expr) -> Expr:
        lanes = lanes_of(value)
        if machine.bfloat16 == "dpbf16" and lanes in (8, 16):
            return reinterpret("uint16", intrinsic(NARROW[lanes], f"int16x{lanes}", value))
        bits = T.bind(reinterpret("uint32", value))
        number = lambda n: splat(n, lanes, "uint32")
        nearest = bits + number(0x7FFF) + ((bits >> number(16)) & number(1))
        # Rounding the bits of a NaN could make an infinity of it.
        nan = (bits & number(0x7FFFFFFF)) > number(0x7F800000)
        return cast("uint16", T.Select(nan, bits | number(1 << 22), nearest) >> number(16))

    return narrowed


def nearest(n: int, machine: Machine) -> tirx.PrimFunc:
    """x [m, n] float32 -> [m, n] float32, each number the nearest that bfloat16 has."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "nearest"})
        m = tirx.Var("m", "int64")
        x, out = (T.arg(name, T.buffer((m, n), "float32")) for name in ("x", "out"))
        # A block, because TVM looks for a reshape in every function of one tensor, and finds blocks only.
        with T.sblock("rows"), shared(m, machine) as (first, last), T.serial(first, last) as row:

            def write(column: Expr, width: int) -> None:
                bits = cast("uint32", narrow(machine)(load(x, row, column, lanes=width)))
                wide = reinterpret("float32", bits << splat(16, width, "uint32"))
                store(out, wide, row, column)

            each(n, machine.lanes, write)
    return builder.get()

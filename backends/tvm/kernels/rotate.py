"""Rotary positions (Su et al., 2021, arXiv:2104.09864, section 3.4.2): heads turned as their projection left
them, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .attention_spec import Columns
from .machine import Machine
from .share import shared
from .vector import Expr, each, load, store


@dataclass(frozen=True)
class Rotate:
    """heads of `dim` columns each, from x.at on. angles: columns of the cosines, dim or the half of it."""

    heads: int
    dim: int
    x: Columns
    angles: int


def rotate(spec: Rotate, machine: Machine) -> tirx.PrimFunc:
    """rows [t] int32, the kept tokens; x [t, x.width], cosines and sines [places, angles] float32, by token
    modulo places -> [t, heads * dim]: x1 cos - x2 sin beside x2 cos + x1 sin, x1, x2 the halves of a head."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "rotate"})
        t, places = tirx.Var("t", "int64"), tirx.Var("places", "int64")
        rows = T.arg("rows", T.buffer((t,), "int32"))
        x = T.arg("x", T.buffer((t, spec.x.width), "float32"))
        cosines, sines = (
            T.arg(name, T.buffer((places, spec.angles), "float32")) for name in ("cosines", "sines")
        )
        out = T.arg("out", T.buffer((t, spec.heads * spec.dim), "float32"))
        with shared(t, machine) as (first, last), T.serial(first, last) as number:
            place = T.bind(rows[number] % T.cast(places, "int32"))
            with T.serial(0, spec.heads) as head:
                _head(spec, machine, number, head, place, x, cosines, sines, out)
    return builder.get()


def _head(
    spec: Rotate, machine: Machine, number: Expr, head: Expr, place: Expr, x: Any, cosines: Any, sines: Any,
    out: Any,
) -> None:  # fmt: skip
    half, start = spec.dim // 2, T.bind(spec.x.at + head * spec.dim)
    later = spec.angles - half  # where the second half's angles are

    def turn(column: Expr, width: int) -> None:
        low, high = (T.bind(load(x, number, start + at + column, lanes=width)) for at in (0, half))
        c1, s1 = (load(table, place, column, lanes=width) for table in (cosines, sines))
        c2, s2 = (load(table, place, later + column, lanes=width) for table in (cosines, sines))
        store(out, low * c1 - high * s1, number, head * spec.dim + column)
        store(out, high * c2 + low * s2, number, head * spec.dim + half + column)

    each(half, machine.lanes, turn)

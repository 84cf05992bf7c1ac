"""Between a padded batch and its kept tokens (ByteDance's Effective Transformer, 2020)."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .machine import Machine
from .share import shared
from .vector import each, load, splat, store


def pack(n: int, machine: Machine) -> tirx.PrimFunc:
    """rows [t] int32, x [tokens, n] float32 -> [t, n]: the kept tokens."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "pack"})
        t, tokens = tirx.Var("t", "int64"), tirx.Var("tokens", "int64")
        rows = T.arg("rows", T.buffer((t,), "int32"))
        x = T.arg("x", T.buffer((tokens, n), "float32"))
        out = T.arg("out", T.buffer((t, n), "float32"))
        with shared(t, machine) as (first, last), T.serial(first, last) as number:
            token = T.bind(rows[number])
            each(
                n, machine.lanes,
                lambda column, width: store(out, load(x, token, column, lanes=width), number, column),
            )  # fmt: skip
    return builder.get()


def unpack(n: int, machine: Machine) -> tirx.PrimFunc:
    """rows [t] int32, ascending, x [t, n] float32 -> [batch, length, n]: zero where a token was not kept."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "unpack"})
        t, batch, size = (tirx.Var(name, "int64") for name in ("t", "batch", "length"))
        rows = T.arg("rows", T.buffer((t,), "int32"))
        x = T.arg("x", T.buffer((t, n), "float32"))
        out = T.arg("out", T.buffer((batch, size, n), "float32"))
        kept, length = T.bind(T.cast(t, "int32")), T.bind(T.cast(size, "int32"))
        tokens = T.bind(T.cast(batch, "int32") * length)
        with shared(tokens, machine) as (first, last):
            with T.If(kept < tokens), T.Then(), T.serial(first, last) as token:
                each(
                    n, machine.lanes,
                    lambda column, width: store(
                        out, splat(0.0, width), token // length, token % length, column
                    ),
                )  # fmt: skip
            with T.serial(0, kept) as row:
                token = T.bind(rows[row])
                with T.If(tirx.And(token >= first, token < last)), T.Then():
                    sequence, place = T.bind(token // length), T.bind(token % length)
                    each(
                        n, machine.lanes,
                        lambda column, width: store(
                            out, load(x, row, column, lanes=width), sequence, place, column
                        ),
                    )  # fmt: skip
    return builder.get()

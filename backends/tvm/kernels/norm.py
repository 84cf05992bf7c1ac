"""Rows of a matrix finished on their own: residual, norm and rounding where no product comes before them."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .dot import product_of
from .machine import Machine
from .rows import Finish, Outputs, declare_inputs, declare_outputs, finish_row
from .share import shared
from .vector import load


def finished(n: int, finish: Finish, machine: Machine) -> tirx.PrimFunc:
    """x [m, n] float32 and the inputs of `Finish`, then its outputs, for any m."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "norm"})
        m = tirx.Var("m", "int64")
        x = T.arg("x", T.buffer((m, n), "float32"))
        dot = product_of(finish.rounds, machine)
        outputs = Outputs(**declare_inputs(finish, m, n, n), **declare_outputs(finish, m, n, dot))
        # A block, because TVM looks for a reshape in every function of one tensor, and finds blocks only.
        with T.sblock("rows"), shared(m, machine) as (first, last), T.serial(first, last) as number:
            held = T.alloc_buffer((1, n), "float32", scope="global")
            finish_row(
                finish, outputs, dot, machine.lanes, n, number,
                lambda column, width: load(x, number, column, lanes=width), (held, 0),
            )  # fmt: skip
    return builder.get()

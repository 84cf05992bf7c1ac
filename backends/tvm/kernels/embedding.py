"""Embedding: rows of tables looked up and added, with the norm that follows, for the kept tokens alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .dot import product_of
from .machine import Machine
from .rows import Finish, Outputs, declare_inputs, declare_outputs, finish_row
from .share import shared
from .vector import Expr, load


@dataclass(frozen=True)
class Embedding:
    """tables: rows of each table that ids choose from. positions: rows of a table that the place in the
    sequence chooses from, 0 for none; one row is added everywhere. n: features."""

    tables: tuple[int, ...]
    positions: int
    n: int
    finish: Finish = field(default_factory=Finish)


def embedding(spec: Embedding, machine: Machine) -> tirx.PrimFunc:
    """The kernel for any number of tokens and kept rows.

    Parameters: rows [t] int32, the kept tokens; for each table its ids [tokens] int64 and weights [rows, n]
    float32; positions [p, n] float32 where there are any, by token modulo p; the inputs of `Finish`, then its
    outputs. Ids must be in range.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "embedding"})
        t, tokens, n = tirx.Var("t", "int64"), tirx.Var("tokens", "int64"), spec.n
        rows = T.arg("rows", T.buffer((t,), "int32"))
        tables = [
            (
                T.arg(f"ids{i}", T.buffer((tokens,), "int64")),
                T.arg(f"table{i}", T.buffer((size, n), "float32")),
            )
            for i, size in enumerate(spec.tables)
        ]
        places = T.arg("positions", T.buffer((spec.positions, n), "float32")) if spec.positions else None
        dot = product_of(spec.finish.rounds, machine)
        outputs = Outputs(**declare_inputs(spec.finish, t, n, n), **declare_outputs(spec.finish, t, n, dot))
        with shared(t, machine) as (first, last), T.serial(first, last) as number:
            token = T.bind(rows[number])
            chosen = [(table, T.bind(T.cast(ids[token], "int32"))) for ids, table in tables]
            if places is not None:
                chosen.append((places, T.bind(token % spec.positions)))
            held = T.alloc_buffer((1, n), "float32", scope="global")

            def total(column: Expr, width: int, chosen: list = chosen) -> Expr:
                values = [load(table, row, column, lanes=width) for table, row in chosen]
                return sum(values[1:], values[0])

            finish_row(spec.finish, outputs, dot, machine.lanes, n, number, total, (held, 0))
    return builder.get()

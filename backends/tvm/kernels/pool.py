"""Pooling: the rows of each sequence added up, among kept tokens alone. The mean (Reimers and Gurevych, 2019,
arXiv:1908.10084, section 3) is this over the number of tokens."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .machine import Machine
from .share import shared
from .vector import Expr, chunks, load, splat, store

_VECTORS = 4  # of neighbouring columns: one task's


def pool(n: int, machine: Machine) -> tirx.PrimFunc:
    """starts [batch + 1] int32, the first row of each sequence, x [t, n] float32 -> [batch, n]: sums of rows,
    zero for a sequence without any."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "pool"})
        entries, t, batch = (tirx.Var(name, "int64") for name in ("entries", "t", "batch"))
        starts = T.arg("starts", T.buffer((entries,), "int32"))
        x = T.arg("x", T.buffer((t, n), "float32"))
        out = T.arg("out", T.buffer((batch, n), "float32"))
        block = machine.lanes * _VECTORS
        full, rest = n // block, n % block
        if full:
            with shared(batch * full, machine) as (first, last), T.serial(first, last) as task:
                _add(starts, x, out, task // full, task % full * block, chunks(block, machine.lanes))
        if rest:
            with shared(batch, machine) as (first, last), T.serial(first, last) as sequence:
                _add(starts, x, out, sequence, n - rest, chunks(rest, machine.lanes))
    return builder.get()


def _add(starts: Any, x: Any, out: Any, sequence: Expr, start: Expr, vectors: list[tuple[int, int]]) -> None:
    """The sums of some columns of one sequence."""
    sums = [T.alloc_buffer((width,), "float32", scope="local") for _, width in vectors]
    for total, (_, width) in zip(sums, vectors, strict=True):
        store(total, splat(0.0, width), 0)
    first, last = T.bind(starts[sequence]), T.bind(starts[sequence + 1])
    with T.serial(first, last) as token:
        for total, (column, width) in zip(sums, vectors, strict=True):
            store(total, load(total, 0, lanes=width) + load(x, token, start + column, lanes=width), 0)
    for total, (column, width) in zip(sums, vectors, strict=True):
        store(out, load(total, 0, lanes=width), sequence, start + column)

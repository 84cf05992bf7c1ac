"""Attention to the keys near a query (sliding windows: arXiv:2004.05150, section 3.1; arXiv:2310.06825)."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .attention import AttentionKernel
from .attention_spec import Attention
from .machine import Machine
from .vector import Expr, load, splat

NOWHERE = -(2**30)  # the place of a key that there is none of


def window_attention(spec: Attention, window: tuple[int, int], machine: Machine) -> tirx.PrimFunc:
    """`attention` whose parameters have, behind q_starts, places [mk] int32: which of the tokens each row was
    before others were left out, for queries and keys alike.

    Args:
        spec: neither causal nor with a bias.
        window: a query sees the keys from so many places before its own to so many behind it.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        _Window(spec, window, machine).build()
    return builder.get()


class _Window(AttentionKernel):
    spotted = True

    def __init__(self, spec: Attention, window: tuple[int, int], machine: Machine) -> None:
        super().__init__(spec, machine)
        self.before, self.behind = window

    def _declare(self, keys: Expr) -> None:
        self.places = T.arg("places", T.buffer((keys,), "int32"))

    def _reserve(self) -> None:
        self.spots = T.alloc_buffer((self.longest,), "int32", scope="global")

    def _gather(self, first: Expr, count: Expr, group: Expr) -> None:
        super()._gather(first, count, group)
        with T.serial(0, count) as j:
            T.buffer_store(self.spots, self.places[first + j], [j])
        with T.serial(count, self.blocks(count) * self.block) as j:
            T.buffer_store(self.spots, T.int32(NOWHERE), [j])

    def _range(self, height: Expr, at: Expr, queries: Expr, count: Expr) -> tuple[Expr, Expr]:
        # Tokens that were left out bring others nearer, never away.
        low = T.bind(T.max(0, at - self.before))
        return low, T.bind(T.min(count, at + (height + self.behind)))

    def _shown(self, query: Expr, visible: Expr, slot: Expr) -> Expr:
        spots = T.bind(load(self.spots, slot, lanes=self.lanes))
        here = T.bind(self.spots[query])
        first, last = (splat(edge, self.lanes) for edge in (here - self.before, here + self.behind))
        return T.And(spots >= first, spots <= last)

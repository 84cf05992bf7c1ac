"""How threads share rows out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvm.tirx.script import builder as T  # noqa: N812

from .machine import Machine
from .vector import Expr


@contextmanager
def shared(count: Expr, machine: Machine) -> Iterator[tuple[Expr, Expr]]:
    """A parallel region; yields (first, last) of the rows of one thread, contiguous and nearly equal."""
    rows = T.bind(T.cast(count, "int32"))
    per = T.bind((rows + (machine.threads - 1)) // machine.threads)
    with T.parallel(0, machine.threads) as thread:
        first = T.bind(T.min(thread * per, rows))
        yield first, T.bind(T.min(first + per, rows))

"""Rows made ready for products by group: normalised, rounded with a scale for each group, summed by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.tirx.script import builder as T  # noqa: N812

from .dot import dot
from .machine import Machine
from .rows import Finish, Norm, Outputs, finish_row
from .vector import LARGEST, SUM, Expr, cast, load, row, splat, store


@dataclass(frozen=True)
class GroupedRows:
    """Scratch for some rows of k inputs in groups; past k they are zero.

    floats: [rows, groups * group]. ready: what products read, `floats` or those rounded. factor: float32
    [rows, groups], the scale of each group; None for floats. totals: [rows, groups], sums of `ready`, what a
    group's zeros are multiplied by.
    """

    k: int
    group: int
    machine: Machine
    floats: Any
    ready: Any
    factor: Any
    totals: Any

    @staticmethod
    def allocated(rows: int, k: int, group: int, dtype: str, machine: Machine) -> GroupedRows:
        """dtype: of what products read; float32, or integers that hold -127 to 127."""
        groups, alloc = -(-k // group), lambda shape, kind: T.alloc_buffer(shape, kind, scope="global")
        floats = alloc((rows, groups * group), "float32")
        if dtype == "float32":
            return GroupedRows(k, group, machine, floats, floats, None, alloc((rows, groups), "float32"))
        return GroupedRows(
            k, group, machine, floats, alloc((rows, groups * group), dtype),
            alloc((rows, groups), "float32"), alloc((rows, groups), "int32"),
        )  # fmt: skip

    def fill(self, slot: Expr, x: Any, number: Expr, norm: Norm | None, gamma: Any, beta: Any) -> None:
        """Makes a row of x [m, k] ready in a slot."""
        lanes = self.machine.lanes
        finish_row(
            Finish(norm=norm), Outputs(gamma=gamma, beta=beta, floats=self.floats), dot(self.machine), lanes,
            self.k, slot, lambda column, width: load(x, number, column, lanes=width), (self.floats, slot),
        )  # fmt: skip
        groups = -(-self.k // self.group)
        with T.serial(self.k, groups * self.group) as column:
            T.buffer_store(self.floats, T.float32(0), [slot, column])
        with T.serial(0, groups) as group:
            if self.factor is None:
                terms = lambda column, width: (self._read(slot, group, column, width),)
                (total,) = row(self.group, lanes, (SUM,), terms)
                T.buffer_store(self.totals, total, [slot, group])
            else:
                self._round(slot, group)

    def _read(self, slot: Expr, group: Expr, column: Expr, width: int) -> Expr:
        return load(self.floats, slot, group * self.group + column, lanes=width)

    def _round(self, slot: Expr, group: Expr) -> None:
        lanes, dtype = self.machine.lanes, str(self.ready.dtype)

        def sizes(column: Expr, width: int) -> tuple[Expr]:
            value = T.bind(self._read(slot, group, column, width))
            return (T.max(value, splat(0.0, width) - value),)

        (largest,) = row(self.group, lanes, (LARGEST,), sizes)
        largest = T.bind(T.max(largest, T.float32(1e-30)))
        inverse = T.bind(T.float32(127) / largest)

        def rounded(column: Expr, width: int) -> tuple[Expr]:
            value = T.bind(T.nearbyint(self._read(slot, group, column, width) * splat(inverse, width)))
            store(self.ready, cast(dtype, cast("int32", value)), slot, group * self.group + column)
            return (value,)

        (total,) = row(self.group, lanes, (SUM,), rounded)
        T.buffer_store(self.factor, largest * T.float32(1 / 127), [slot, group])
        T.buffer_store(self.totals, T.cast(total, "int32"), [slot, group])

"""Writes a Relax function whose token-wise part works on rows.

A value may exist in two forms: as the graph has it, and as rows [m, features], which kernels read and write.
Rows are all of a tensor's, or, where padding is removed, those of the kept tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import relax, tirx

from ....ir.values import Value, sizes
from ..kernels.machine import Machine
from ..kernels.pack import pack, unpack

ROWS, STARTS = "graphwright.rows", "graphwright.starts"  # inputs that say which tokens are kept


class Emitter:
    """The function being written.

    packed: whether tokens' rows are those of the kept tokens. kept: how many, a symbol, then.
    """

    def __init__(
        self, builder: Any, machine: Machine, parameters: Sequence[Any], batch: int, packed: bool
    ) -> None:
        self.builder, self.machine, self.packed = builder, machine, packed
        self.made = list(parameters)
        self.kept: Any = None
        if packed:
            self.kept = tirx.Var("kept", "int64")
            self.rows_input = relax.Var(ROWS, relax.TensorType((self.kept,), "int32"))
            self.starts_input = relax.Var(STARTS, relax.TensorType((batch + 1,), "int32"))
            self.made += [self.rows_input, self.starts_input]
        self.tokens: set[Value] = set()
        self._whole: dict[Value, Any] = {}
        self._rows: dict[Value, Any] = {}
        self._kernels: dict[Any, Any] = {}
        self.counts: Counter[str] = Counter()

    def kernel(
        self, name: str, key: Any, make: Any, arguments: Sequence[Any], results: Sequence[tuple[Any, str]]
    ) -> list:
        """A call of a kernel, made once for equal keys.

        Args:
            make: builds the PrimFunc.
            results: (shape, dtype) of each output.
        """
        if key not in self._kernels:
            function = make().without_attr("global_symbol")
            self._kernels[key] = self.builder.add_func(function, name)
        self.counts[name] += 1
        types = [relax.TensorType(shape, dtype) for shape, dtype in results]
        call = relax.call_tir(
            self._kernels[key], list(arguments), out_ty=types if len(types) > 1 else types[0]
        )
        made = self.builder.emit(call)
        if len(types) == 1:
            return [made]
        return [self.builder.emit(relax.TupleGetItem(made, i)) for i in range(len(types))]

    def is_tokens(self, value: Value) -> bool:
        """Whether the rows of a value are the kept tokens."""
        return self.packed and value in self.tokens

    def to_tokens(self, value: Value) -> None:
        """From here on the rows of a value of (batch, length, features) are the kept tokens."""
        if self.packed and value not in self.tokens:
            if value in self._rows:
                self.whole(value)
                del self._rows[value]
            self.tokens.add(value)

    def bound(self, value: Value) -> int:
        """How many rows a value has at most."""
        return prod(sizes(value)[:-1])

    def count(self, value: Value) -> Any:
        """How many rows a value has."""
        return self.kept if self.is_tokens(value) else self.bound(value)

    def set_whole(self, value: Value, variable: Any) -> None:
        self._whole[value] = variable

    def set_rows(self, value: Value, variable: Any) -> None:
        self._rows[value] = variable

    def has_rows(self, value: Value) -> bool:
        return value in self._rows

    def rows(self, value: Value, like: Value | None = None) -> Any:
        """A value as rows: those of the kept tokens where it, or `like`, is of tokens."""
        if like is not None and self.is_tokens(like):
            self.to_tokens(value)
        if value in self._rows:
            return self._rows[value]
        width = sizes(value)[-1]
        flat = self.shaped(self.whole(value), [self.bound(value), width])
        if self.is_tokens(value):
            key = ("pack", width)
            (flat,) = self.kernel(
                f"pack_{width}", key, lambda: pack(width, self.machine), [self.rows_input, flat],
                [((self.kept, width), "float32")],
            )  # fmt: skip
        self._rows[value] = flat
        return flat

    def whole(self, value: Value) -> Any:
        """A value as the graph has it."""
        if value in self._whole:
            return self._whole[value]
        if value not in self._rows:
            assert value.const is not None, value
            return value.native
        shape = list(sizes(value))
        found, width = self._rows[value], shape[-1]
        if self.is_tokens(value):
            (found,) = self.kernel(
                f"unpack_{width}", ("unpack", width), lambda: unpack(width, self.machine),
                [self.rows_input, found], [(tuple(shape), "float32")],
            )  # fmt: skip
        self._whole[value] = self.shaped(found, shape)
        return self._whole[value]

    def shaped(self, variable: Any, shape: Sequence[int]) -> Any:
        """A reshape, where there is anything to change."""
        if [int(d) if isinstance(d, tirx.IntImm | int) else d for d in variable.ty.shape] == list(shape):
            return variable
        return self.builder.emit(relax.op.reshape(variable, list(shape)))

    def constant(self, array: np.ndarray) -> Any:
        return relax.const(np.ascontiguousarray(array), str(array.dtype))

"""One read-only way of looking at a graph, whatever its dialect.

A view is a graph of values. A `Value` is one result of one operation, a graph input, or a constant
(parameters and Python scalars included). Operators carry canonical names where both dialects can say
the same thing ("matmul", "layer_norm", "reshape", ...), and the dialect's own name otherwise, so that
a recogniser is written once. Replacement code does not go through the view: it uses `value.native`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Dim = int | str | None  # an int, a symbol's name, or unknown


class Value(Protocol):
    """One value. Two Value objects for the same native value are equal and hash alike."""

    @property
    def name(self) -> str: ...

    @property
    def op(self) -> str:
        """Canonical operator name, "input", "const", or the dialect's own name."""

    @property
    def inputs(self) -> Sequence[Value | None]:
        """Data operands in canonical order; an absent optional operand is None."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes under canonical names: axis, perm, epsilon, dim sizes, ..."""

    @property
    def users(self) -> Sequence[Value]: ...

    @property
    def index(self) -> int:
        """Which result of its operation this is (0 for most)."""

    @property
    def const(self) -> np.ndarray | None:
        """The constant's data, None for anything computed. Reading it may load it: check `shape` first."""

    @property
    def shape(self) -> tuple[Dim, ...] | None: ...

    @property
    def dtype(self) -> str | None: ...

    @property
    def native(self) -> Any:
        """torch.fx.Node or onnx_ir.Value."""


class View(Protocol):
    """A whole graph. `values` are in topological order."""

    @property
    def dialect(self) -> str: ...

    @property
    def values(self) -> Sequence[Value]: ...

    @property
    def inputs(self) -> Sequence[Value]: ...

    @property
    def outputs(self) -> Sequence[Value]: ...

    def of(self, native: Any) -> Value:
        """The value that stands for a native node or value."""

    def __iter__(self) -> Iterator[Value]: ...


def view(program: Any) -> View:
    """The view over a program's graph, made by its dialect's adapter."""
    if program.dialect == "onnx":
        from .onnx import OnnxView

        return OnnxView(program.graph)
    from .fx import FxView

    return FxView(program.graph)

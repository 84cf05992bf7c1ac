"""One read-only way of looking at a graph, whatever its dialect.

A view is a graph of values. A `Value` is one result of one operation, a graph input, or a constant
(parameters and Python scalars included). Operators carry canonical names where both dialects can say
the same thing ("matmul", "layer_norm", "reshape", ...), and the dialect's own name otherwise, so that
a recogniser is written once. Replacement code does not go through the view: it uses `value.native`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Dim = int | str | None  # an int, a symbol's name, or unknown
END = 2**63 - 1  # the end of a slice that runs to the end of an axis of unknown size


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
    def tensor(self) -> Any:
        """What holds a constant's data: a torch.Tensor or an onnx_ir tensor; None for anything else."""

    @property
    def shape(self) -> tuple[Dim, ...] | None: ...

    @property
    def dtype(self) -> str | None: ...

    @property
    def native(self) -> Any:
        """torch.fx.Node or onnx_ir.Value."""


def sizes(value: Value) -> tuple[int, ...]:
    """The shape of a value in a graph of fixed sizes, such as a function that TVM compiles.

    Raises:
        ValueError: an axis is free, or the rank is unknown.
    """
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        raise ValueError(f"{value.name} has no fixed shape: {value.shape}")
    return tuple(int(size) for size in value.shape if size is not None)


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


class GraphValue:
    """What both adapters make: a Value whose const is loaded on demand by `load`.

    tensor: what holds a constant's data, a torch.Tensor or an onnx_ir tensor; None for a Python number.
    """

    __slots__ = (
        "attrs", "dtype", "index", "inputs", "load", "name", "native", "op", "shape", "tensor", "users"
    )  # fmt: skip

    def __init__(
        self,
        native: Any,
        name: str,
        op: str,
        inputs: Sequence[GraphValue | None] = (),
        attrs: Mapping[str, Any] | None = None,
        index: int = 0,
        shape: tuple[Dim, ...] | None = None,
        dtype: str | None = None,
        load: Callable[[], np.ndarray | None] | None = None,
        tensor: Any = None,
    ) -> None:
        self.native = native
        self.name = name
        self.op = op
        self.inputs = tuple(inputs)
        self.attrs = attrs if attrs is not None else {}
        self.index = index
        self.shape = shape
        self.dtype = dtype
        self.load = load
        self.tensor = tensor
        self.users: list[GraphValue] = []

    @property
    def const(self) -> np.ndarray | None:
        return self.load() if self.load is not None else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphValue) and self.native == other.native

    def __hash__(self) -> int:
        return hash(self.native)

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


class GraphView:
    """What both adapters are: a snapshot of a graph, filled once in topological order.

    A rewrite does not show in it: take a new view after editing the graph.
    """

    dialect: str

    def __init__(self) -> None:
        self.values: list[GraphValue] = []
        self.inputs: list[GraphValue] = []
        self.outputs: list[GraphValue] = []
        self._of: dict[Any, GraphValue] = {}

    def add(self, value: GraphValue) -> GraphValue:
        """Append a value and enter it among its inputs' users, once each."""
        self.values.append(value)
        self._of[value.native] = value
        for operand in value.inputs:
            if operand is not None and not (operand.users and operand.users[-1] is value):
                operand.users.append(value)
        return value

    def of(self, native: Any) -> GraphValue:
        """The value that stands for a native node or value.

        Raises:
            KeyError: the native object carries no data (a guard, a Shape folded away) or is of another graph.
        """
        return self._of[native]

    def __contains__(self, native: Any) -> bool:
        return native in self._of

    def __iter__(self) -> Iterator[GraphValue]:
        return iter(self.values)

"""What a converter of ours sees of an ONNX node while it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

from ....ir.errors import BackendError


@dataclass(frozen=True)
class Node:
    """name: the operator's, with its domain. inputs: Relax expressions, None where one is left out.
    attrs: numbers, tuples of them, and bytes for strings. builder: of the function under construction.
    parameters: the graph's inputs. opset: of the standard operators."""

    name: str
    inputs: Sequence[Any]
    attrs: Mapping[str, Any]
    builder: relax.BlockBuilder
    parameters: Sequence[Any]
    opset: int = 23

    def emit(self, value: Any) -> Any:
        """A variable that is bound to an expression."""
        return self.builder.emit(value)

    def operands(self, count: int) -> list[Any]:
        """The first inputs, None for those that are not there.

        Raises:
            BackendError: there are more.
        """
        if any(value is not None for value in list(self.inputs)[count:]):
            raise self.unfit(f"its input {count} and those after it")
        return [*self.inputs, *[None] * count][:count]

    def number(self, name: str, default: float) -> float:
        return float(self.attrs.get(name, default))

    def is_input(self, value: Any) -> bool:
        return any(value.same_as(parameter) for parameter in self.parameters)

    def like(self, number: float, value: Any) -> Any:
        """A constant of a value's type."""
        return relax.const(number, str(value.ty.dtype))

    def sum(self, values: Sequence[Any]) -> Any:
        """Of those that are there; None if none is."""
        found = None
        for value in (value for value in values if value is not None):
            found = value if found is None else self.emit(relax.op.add(found, value))
        return found

    def unused(self, count: int) -> list[Any]:
        """Stand-ins for results that no inference reads."""
        return [relax.const(0.0, "float32")] * count

    def unfit(self, what: str) -> BackendError:
        """The error for a part of an operator that nothing here converts."""
        return BackendError(f"TVM has no {self.name} with {what}.")


Converter = Callable[[Node], Any]
"""Gives the result, a relax.Tuple of several, or None: TVM's own converter is right."""
